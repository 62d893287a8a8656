"""Architectures: one module each, with a `Generator` and a `Discriminator`.

Generator(resolution, channels, num_classes, *, <options>): z (N, Z), y (N,) or None -> float
(N, C, H, W) in [-1, 1]; attributes z_dim and z_distribution ("normal" or "uniform").
Discriminator(resolution, channels, num_classes, *, <options>): images, y -> logits (N,).
The keyword-only arguments are the schema of the config's [model.generator] and
[model.discriminator]; num_classes is 0 and y is None in an unconditional model.
"""
