"""A recipe -> its dataset, and with that one's shape networks, optimizers, and the Game."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ganinfer.errors import ConfigError
from ganinfer.lookup import check_has, find_part
from gantrain.data.dataset import Dataset
from gantrain.data.opening import open_dataset
from gantrain.data.resolution import Resolution, in_words
from gantrain.game import optimizers, schedules
from gantrain.game.config import Config, Part
from gantrain.game.draws import Draws
from gantrain.game.freezing import freeze
from gantrain.game.kinds import DISCRIMINATOR, MODEL, OBJECTIVE, REGULARIZER
from gantrain.game.parts import Game, Hooks, Objective
from gantrain.models._base import DiscriminatorModule, GeneratorModule, StyledGenerator


def open_data(config: Config, progress: Callable[[int, int], None] | None = None) -> Dataset:
    """The dataset of a recipe; shards are looked at, and pictures prepared, if they were not yet.

    Args:
        config: the recipe.
        progress: called with (shards or images done, in all).

    Raises:
        DataError: it is not there and has no source, or it is broken.
        ConfigError: it is prepared with labels that the recipe leaves out, or at another size.
    """
    data = config.data
    dataset = open_dataset(
        Path(data.path),
        source=data.source,
        resolution=data.size,
        labelled=data.labels,
        progress=progress,
    )
    if dataset.classes and not data.labels:
        raise ConfigError(
            f"{config.where} [data] labels: {data.path} was prepared with its labels, and false"
            " leaves out only those of pictures and shards; gan prepare --no-labels makes a dataset"
            " without"
        )
    if data.size and dataset.resolution != data.size:
        raise ConfigError(
            f"{config.where} [data] resolution: {in_words(data.size)}, and {data.path} was prepared"
            f" at {in_words(dataset.resolution)}; ask for that, or prepare it anew:"
            " gan prepare --resolution"
        )
    return dataset


def build_game(
    config: Config, resolution: Resolution, channels: int, num_classes: int, device: torch.device
) -> Game:
    """Freshly initialised networks for images of that shape, and all that the recipe names.

    Args:
        config: the recipe. resolution, channels: of the images.
        num_classes: of the dataset; 0 when it has no labels.
        device: where the networks go.

    Raises:
        ConfigError: parts that cannot be combined, or that do not fit the images.
    """
    shape = (resolution, channels, num_classes if config.conditional else 0)
    try:
        game = Game(
            build_generator(config, *shape).to(device),
            build_discriminator(config, *shape).to(device),
            build_objective(config),
            build_regularizers(config),
            Draws(config.train.seed, device),
            num_classes=shape[2],
            points=resolution == 1,
        )
    except ConfigError as error:
        raise ConfigError(f"{config.where}: {error}") from None
    if config.train.truncation and (reason := _untruncated(game.generator)):
        raise ConfigError(f"{config.where} [train] truncation: {reason}; leave it out")
    freeze(game, config.train.freeze, where=f"{config.where} [train] freeze")
    return game


def _untruncated(generator: GeneratorModule) -> str | None:
    """Why latents for that generator cannot be truncated."""
    if generator.z_distribution != "normal":
        return "G's latent is uniform, and only a normal one can be truncated"
    if isinstance(generator, StyledGenerator):
        return "G normalises its latents; its styles are truncated when images are drawn"
    return None


def build_generator(
    config: Config, resolution: Resolution, channels: int, num_classes: int
) -> GeneratorModule:
    """A freshly initialised generator for images of that shape, changed by the regularizers."""
    module = find_part(MODEL, config.model, where=config.where)
    if not isinstance(resolution, int) and module.Generator.only_square:
        raise ConfigError(
            f"[model] {config.model} makes square images alone, and the data are"
            f" {in_words(resolution)} (height x width); prepare them with --resolution"
            f" {min(resolution)}, or take a model such as dcgan or resnet"
        )
    network: GeneratorModule = module.Generator(
        resolution, channels, num_classes, **config.generator
    )
    _check_attributes(network, GeneratorModule, config)
    for hook in _changing_hooks(config):
        hook.change_generator(network)
    return network


def build_discriminator(
    config: Config, resolution: Resolution, channels: int, num_classes: int
) -> DiscriminatorModule:
    """A freshly initialised discriminator for images of that shape, changed likewise."""
    kind, name = MODEL, config.model
    if config.discriminator_name is not None:
        kind, name = DISCRIMINATOR, config.discriminator_name
    module = find_part(kind, name, where=config.where)
    network: DiscriminatorModule = module.Discriminator(
        resolution, channels, num_classes, **config.discriminator
    )
    _check_attributes(network, DiscriminatorModule, config)
    for hook in _changing_hooks(config):
        hook.change_discriminator(network)
    return network


def _check_attributes(network: nn.Module, kind: type, config: Config) -> None:
    """Refuse a network that lacks what the rest of the house looks at."""
    check_has(network, [*kind.__annotations__], where=f"{config.where} [model] {config.model}")


def build_objective(config: Config) -> Objective:
    """The objective, with its options."""
    module = find_part(OBJECTIVE, config.objective.name, where=config.where)
    objective: Objective = module.Objective(**config.objective.options)
    return objective


def build_regularizers(config: Config) -> list[tuple[str, Hooks]]:
    """The regularizers by name, with their options."""
    found = []
    for part in config.regularizers:
        module = find_part(REGULARIZER, part.name, where=config.where)
        found.append((part.name, module.Regularizer(**part.options)))
    return found


def _changing_hooks(config: Config) -> list[Hooks]:
    """The objective and the regularizers, in the order in which they change a network."""
    hooks = [build_objective(config), *(hook for _, hook in build_regularizers(config))]
    return sorted(hooks, key=lambda hook: hook.changes_last)


def build_optimizer(part: Part, network: nn.Module) -> torch.optim.Optimizer:
    """The named optimizer over all parameters of a network."""
    optimizer: torch.optim.Optimizer = getattr(optimizers, part.name)(
        network.parameters(), **part.options
    )
    return optimizer


def load_optimizer(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Go on from what `state_dict` gave, after it has been in a checkpoint."""
    # JSON made strings of the parameters' numbers.
    moments = {int(number): moment for number, moment in saved["state"].items()}
    optimizer.load_state_dict({"state": moments, "param_groups": saved["param_groups"]})
    # A fused optimizer reads moments in the memory order of the weights, channels_last or not.
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[key] = torch.empty_like(parameter).copy_(value)


def learning_rate_factor(config: Config, images_seen: int) -> float:
    """What the schedule makes of the optimizers' learning rates."""
    schedule = getattr(schedules, config.schedule.name)
    factor: float = schedule(images_seen, config.train.total_images, **config.schedule.options)
    return factor
