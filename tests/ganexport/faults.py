"""The faults of other people's pipelines, to be planted in ours.

A graph fault wraps the generator; a weight fault bakes another network than the one that was
trained. Each takes the place of a name in ganexport.graph.
"""

import dataclasses

import torch
from torch import nn

from ganexport.graph.tracing import SamplingGraph, bake
from gantrain.game.build import build_generator
from gantrain.models.dcgan import Generator
from gantrain.runs.checkpoint import checkpoint_files, load_checkpoint, load_generator


class FloorForRound(SamplingGraph):
    def forward(self, z, y=None):
        scaled = (self.generator(z, y).clamp(-1.0, 1.0) + 1.0) * 127.5
        return scaled.floor().permute(0, 2, 3, 1).to(torch.uint8)


class LabelsOffByOne(SamplingGraph):
    def forward(self, z, y=None):
        return super().forward(z, (y + 1) % 3)


class LatentsScaled(SamplingGraph):
    def forward(self, z, y=None):
        return super().forward(z * 1.02, y)


class ChannelsSwapped(SamplingGraph):
    def forward(self, z, y=None):
        scaled = (self.generator(z, y).flip(1).clamp(-1.0, 1.0) + 1.0) * 127.5
        return scaled.round().permute(0, 2, 3, 1).to(torch.uint8)


def bake_raw_weights(trained):
    """The generator under training, not its average."""
    state = load_checkpoint(trained.path)["generator"]
    network = build_generator(trained.config, 16, 3, 3)
    network.load_state_dict(state)
    return bake(dataclasses.replace(trained, network=network.eval()))


def bake_stale_weights(trained):
    return bake(load_generator(checkpoint_files(trained.path.parent.parent)[0]))


def bake_batch_statistics(trained):
    """Batch norm left in train mode: it normalises by the batch at hand."""
    twin = bake(trained)
    for module in twin.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = module.running_var = None
            module.track_running_stats = False
    return twin


class WithoutTanh(Generator):
    def forward(self, z, y=None):
        x = z[:, :, None, None]
        for layer, norm in zip((self.project, *self.ups), self.norms, strict=True):
            x = torch.relu(norm(layer(x), y))
        return self.to_image(x)


def bake_without_tanh(trained):
    twin = bake(trained)
    twin.__class__ = WithoutTanh
    return twin


FAULTS = {
    "floor for round": ("SamplingGraph", FloorForRound),
    "labels off by one": ("SamplingGraph", LabelsOffByOne),
    "latents scaled by 1.02": ("SamplingGraph", LatentsScaled),
    "channels swapped": ("SamplingGraph", ChannelsSwapped),
    "EMA weights not used": ("bake", bake_raw_weights),
    "stale weights": ("bake", bake_stale_weights),
    "batch norm in train mode": ("bake", bake_batch_statistics),
    "tanh missing": ("bake", bake_without_tanh),
}
