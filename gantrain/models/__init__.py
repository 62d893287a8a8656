"""Architectures: one module each, with a `Generator` and a `Discriminator`.

Generator(resolution, channels, num_classes, *, <options>): a `_base.GeneratorModule`.
Discriminator(resolution, channels, num_classes, *, <options>): a `_base.DiscriminatorModule`.
The keyword-only arguments are the schema of the config's [model.generator] and
[model.discriminator]; num_classes is 0 and y is None in an unconditional model. Spectral norm and
what else may change a network is a regularizer's business, so that any network can have it.
"""
