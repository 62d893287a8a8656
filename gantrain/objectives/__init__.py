"""Objectives: one module each, with a class `Objective`, a `gantrain.game.parts.Objective`.

discriminator_loss(real_logits, fake_logits) and generator_loss(fake_logits) map logits (N,) to a
scalar to be minimised; the hooks of `gantrain.game.parts.Hooks` are there for more. Keyword-only
arguments of Objective are the schema of [objective].
"""
