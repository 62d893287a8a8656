"""Objectives: one module each, with a class `Objective`, a `_base.Base`.

discriminator_loss(real_logits, fake_logits) and generator_loss(fake_logits) map logits (N,) to a
scalar to be minimised; the hooks of `gantrain.game.hooks.Hooks` are there for more. Keyword-only
arguments of Objective are the schema of [objective].
"""
