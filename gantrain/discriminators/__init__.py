"""Discriminators that any generator may play against: one module each, with a `Discriminator`.

Discriminator(resolution, channels, num_classes, *, <options>): a
`gantrain.models._base.DiscriminatorModule`, as a model's own is. A recipe names one as
[model.discriminator] name, in the place of the model's.
"""
