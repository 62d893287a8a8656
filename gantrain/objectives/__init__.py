"""Objectives: one module each, with a class `Objective`.

discriminator_loss(real_logits, fake_logits) and generator_loss(fake_logits) map logits (N,) to a
scalar to be minimised. penalty(discriminator, real, fake, y) is added to D's loss, and
after_discriminator_step(discriminator) runs after D's optimizer; most objectives inherit the
empty ones of `_base.Base`. Keyword-only arguments of Objective are the schema of [objective].
"""
