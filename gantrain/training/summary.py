"""The networks of a recipe, layer by layer, without training anything."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from gantrain.data.dataset import Dataset
from gantrain.game.build import build_game, build_optimizer, open_data
from gantrain.game.config import Config
from gantrain.game.parts import Game
from gantrain.training.inheritance import Ancestry, inherit
from gantrain.training.tracking import find_trackers
from gantrain.training.train import check_shares, losses, pick_device


@dataclass(frozen=True)
class Row:
    """A layer with weights: its output (C, H, W) or (F,), and the cost of one image."""

    name: str
    kind: str
    shape: tuple[int, ...]
    num_parameters: int
    macs: int


@dataclass(frozen=True)
class Summary:
    """One network; macs are the multiply-accumulates of one image's way through it."""

    title: str
    rows: list[Row]
    num_parameters: int
    macs: int


def summarize(config: Config) -> list[Summary]:
    """Check a recipe against its data, as `train` does first, and measure both networks.

    Args:
        config: the recipe.

    Returns:
        G's summary and D's.

    Raises:
        ConfigError, DataError: whatever would stop `train` at its start.
    """
    device = pick_device(config.train.device, where=config.where)
    find_trackers(config)
    dataset, game = _open(config)
    check_shares(config, game)
    for _, hook in game.hooks:
        hook.open_data(dataset, torch.device("cpu"), config.train.seed)
    losses(game, config.train)
    _optimizers(config, game)
    z = game.draws.latents(game.generator, 2, truncation=config.train.truncation)
    y = torch.zeros(2, dtype=torch.int64) if game.num_classes else None
    images = torch.zeros(2, dataset.channels, dataset.height, dataset.width)
    return [
        _summary(f"generator: {config.model}, on {device}", game.generator, (z, y)),
        _summary(
            f"discriminator: {config.discriminator_name or config.model}",
            game.discriminator,
            (images, y),
        ),
    ]


def what_fits(config: Config) -> Ancestry:
    """What `train` would take over from what [start] names.

    Raises:
        CheckpointError: there is nothing to begin with, or nothing fits.
    """
    dataset, game = _open(config)
    average = copy.deepcopy(game.generator)
    return inherit(config, game, average, dataset.classes, _optimizers(config, game))


def _open(config: Config) -> tuple[Dataset, Game]:
    dataset = open_data(config)
    shape = (dataset.resolution, dataset.channels, dataset.num_classes)
    return dataset, build_game(config, *shape, torch.device("cpu"))


def _optimizers(config: Config, game: Game) -> dict[str, torch.optim.Optimizer]:
    return {
        "generator": build_optimizer(config.generator_optimizer, game.generator),
        "discriminator": build_optimizer(config.discriminator_optimizer, game.discriminator),
    }


@torch.no_grad()
def _summary(title: str, network: nn.Module, inputs: tuple[Any, ...]) -> Summary:
    shapes: dict[str, tuple[int, ...]] = {}
    num_images = len(inputs[0])

    def note(name: str) -> Any:
        def hook(_layer: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor):
                shapes[name] = tuple(output.shape[1:])

        return hook

    # Layers: what has weights of its own and no parts that have (parametrizations are no parts).
    layers = {
        name: layer
        for name, layer in network.named_modules()
        if "parametrizations" not in name and _own_parameters(layer)
    }
    handles = [layer.register_forward_hook(note(name)) for name, layer in layers.items()]
    network.eval().requires_grad_(False)
    with FlopCounterMode(display=False, depth=100) as counter:
        network(*inputs)
    for handle in handles:
        handle.remove()
    counts = counter.get_flop_counts()
    root = type(network).__name__

    def macs(name: str) -> int:
        """Of a layer with all its parts. The counter counts two operations for each."""
        flops = sum(counts.get(f"{root}.{name}" if name else root, {}).values())
        return int(flops) // (2 * num_images)

    def own_macs(name: str) -> int:
        parts = [other for other in layers if other.startswith(f"{name}.")]
        return macs(name) - sum(own_macs(part) for part in parts)

    rows = [
        Row(
            name,
            type(layer).__name__.removeprefix("Parametrized"),
            shapes.get(name, ()),
            _own_parameters(layer),
            own_macs(name),
        )
        for name, layer in layers.items()
        if name
    ]
    total = sum(p.numel() for p in network.parameters())
    return Summary(title, rows, total, macs(""))


def _own_parameters(layer: nn.Module) -> int:
    """Numbers in the layer's own parameters, those under a parametrization included."""
    own = sum(p.numel() for p in layer.parameters(recurse=False))
    held = getattr(layer, "parametrizations", None)
    return own + (sum(p.numel() for p in held.parameters()) if held is not None else 0)
