"""Another run's networks are loaded into those of a run that begins, as far as they fit.

A tensor fits if it has the name and the shape of one here. Of one that has a row for each class, as
an embedding has, those rows fit that belong to a class of the same name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ganinfer.errors import CheckpointError
from gantrain.data.names import listed
from gantrain.game.build import build_discriminator, build_generator, load_optimizer
from gantrain.game.config import Config, Part, parse_config
from gantrain.game.parts import Game
from gantrain.models._layers import PER_CLASS
from gantrain.runs.ancestor import Ancestor, Tensors, open_ancestor
from gantrain.runs.checkpoint import shape_of_data

_NAMED = 3  # tensors or classes in a message, at most


@dataclass(frozen=True)
class Ancestry:
    """What a run has taken over, for its checkpoints and its history.

    Attributes:
        path, sha256, images_seen: of the file; the last is None where it is unknown.
        generator: "ema" or "raw", see `StartConfig`.
        loaded: how many tensors were loaded whole.
        fresh: those that were not, or not in all their rows, and why.
        left_out: those of the file that have no place here.
        ancestry: the file's own, if it has one.
        advice: what it was trained with that the recipe does not say.
    """

    path: str
    sha256: str
    images_seen: int | None
    generator: str
    loaded: int
    fresh: dict[str, str]
    left_out: list[str]
    ancestry: dict[str, Any] | None
    advice: str = ""

    def words(self) -> str:
        """The same, shortened, for people."""
        age = "" if self.images_seen is None else f" at {self.images_seen / 1000:g} kimg"
        text = f"begins with {self.path}{age}: {self.loaded} tensors fit"
        if self.fresh:
            text += f"; fresh: {_reasons(self.fresh)}"
        if self.left_out:
            text += f"; left out: {listed(self.left_out, _NAMED)}"
        return f"{text}; {self.advice}" if self.advice else text


def inherit(
    config: Config,
    game: Game,
    average: nn.Module,
    classes: Sequence[str],
    optimizers: Mapping[str, torch.optim.Optimizer],
) -> Ancestry:
    """Load what fits into a game that begins, as [start] of its recipe says.

    Args:
        config: the recipe.
        game: of fresh networks. average: its averaged generator.
        classes: names of the dataset's classes.
        optimizers: of "generator" and "discriminator", which have not stepped yet.

    Raises:
        CheckpointError: there is nothing to begin with, or nothing fits.
    """
    start = config.start
    assert start is not None
    ancestor = open_ancestor(Path(start.path))
    classes = classes if game.num_classes else []
    raw = start.generator == "raw"
    fit(average, ancestor.ema, ancestor.classes, classes)
    pairs: list[tuple[str, nn.Module, Tensors]] = [
        ("generator", game.generator, ancestor.generator if raw else ancestor.ema),
        ("discriminator", game.discriminator, ancestor.discriminator),
    ]
    loaded, fresh, left_out = list[Tensor](), dict[str, str](), list[str]()
    for part, network, tensors in pairs:
        reasons = fit(network, tensors, ancestor.classes, classes)
        own = network.state_dict()
        loaded += [value for name, value in own.items() if name not in reasons]
        fresh |= {f"{part}.{name}": reason for name, reason in reasons.items()}
        left_out += [f"{part}.{name}" for name in tensors if name not in own]
    if not any(value.ndim > 1 for value in loaded):  # a bias or two mean nothing
        raise CheckpointError(
            f"{ancestor.path}: no weights of its layers fit these networks,"
            f" {_reasons(fresh)};"
            " begin with a run of the same [model], or leave --from and [start] out"
        )
    if start.state:
        _inherit_state(ancestor, config, game, optimizers, fresh)
    return Ancestry(
        path=str(ancestor.path),
        sha256=ancestor.sha256,
        images_seen=ancestor.images_seen,
        generator=start.generator,
        loaded=len(loaded),
        fresh=fresh,
        left_out=left_out,
        ancestry=(ancestor.saved or {}).get("ancestry"),
        advice=_advice(ancestor, config),
    )


def _advice(ancestor: Ancestor, config: Config) -> str:
    """What the recipe should say as well."""
    clamp = ancestor.conv_clamp
    options = {"generator": config.generator, "discriminator": config.discriminator}
    unlike = [part for part, given in options.items() if given.get("conv_clamp") != clamp]
    if clamp is None or not unlike:
        return ""
    settings = " ".join(f"--set model.{part}.conv_clamp={clamp}" for part in unlike)
    return f"it was trained with conv_clamp = {clamp}: {settings}"


@torch.no_grad()
def fit(
    network: nn.Module, tensors: Tensors, old: Sequence[str] | None, new: Sequence[str]
) -> dict[str, str]:
    """Copy into a network what fits.

    Args:
        network: of the classes `new`. tensors: of a network of the classes `old`, by name.
        old: None if their names are unknown; rows of classes are then one tensor like others.
        new: names.

    Returns:
        What was not copied whole, and why.
    """
    of_classes = _of_classes(network)
    reasons: dict[str, str] = {}
    for name, value in network.state_dict().items():
        given = tensors.get(name)
        if given is None:
            reasons[name] = "not there"
        elif name in of_classes and old is not None and len(given) == len(old):
            if given.shape[1:] != value.shape[1:]:
                reasons[name] = _shapes(given, value)
                continue
            for row, kind in enumerate(new):
                if kind in old:
                    value[row] = given[old.index(kind)].to(value)
            if missing := [kind for kind in new if kind not in old]:
                reasons[name] = f"for {listed(missing, _NAMED)}"
        elif given.shape != value.shape:
            reasons[name] = _shapes(given, value)
        else:
            value.copy_(given)
    if reasons:
        _settle(network)
    return reasons


def _of_classes(network: nn.Module) -> set[str]:
    """Names of the parameters that have a row for each class."""
    layers = tuple(
        f"{name}." for name, layer in network.named_modules() if isinstance(layer, PER_CLASS)
    )
    return {name for name, _ in network.named_parameters() if name.startswith(layers)}


def _settle(network: nn.Module) -> None:
    """Let spectral norm find the singular vectors of weights that are new in part."""
    training = network.training
    network.train()
    for layer in network.modules():
        if parametrize.is_parametrized(layer, "weight"):
            for _ in range(15):
                _ = layer.weight  # a power iteration
    network.train(training)


def _inherit_state(
    ancestor: Ancestor,
    config: Config,
    game: Game,
    optimizers: Mapping[str, torch.optim.Optimizer],
    fresh: dict[str, str],
) -> None:
    """Go on with the moments and the regularizers' state of an ancestor, if it has such.

    Weights that are `fresh` begin without moments; what else is fresh is added, and why.
    """
    saved = ancestor.saved
    if saved is None:
        raise CheckpointError(
            f"{ancestor.path}: weights alone, without the state of optimizers; begin with a"
            " checkpoint, or leave [start] state out"
        )
    old = parse_config(saved["config"], where=str(ancestor.path))
    shape = shape_of_data(saved)
    players: list[tuple[str, nn.Module, nn.Module, Part, Part]] = [
        (
            "generator",
            *(game.generator, build_generator(old, *shape)),
            *(config.generator_optimizer, old.generator_optimizer),
        ),
        (
            "discriminator",
            *(game.discriminator, build_discriminator(old, *shape)),
            *(config.discriminator_optimizer, old.discriminator_optimizer),
        ),
    ]
    for part, mine, theirs, optimizer, old_optimizer in players:
        if optimizer.name != old_optimizer.name:
            fresh[f"{part}_optimizer"] = f"it is {old_optimizer.name} there, {optimizer.name} here"
            continue
        numbered = saved[f"{part}_optimizer"]["state"]
        names = enumerate(name for name, _ in theirs.named_parameters())
        moments = {name: numbered[str(n)] for n, name in names if str(n) in numbered}
        state = {
            n: moments[name]
            for n, (name, _) in enumerate(mine.named_parameters())
            if name in moments and f"{part}.{name}" not in fresh
        }
        load_optimizer(optimizers[part], optimizers[part].state_dict() | {"state": state})
    same = {part.name for part in old.regularizers if part in config.regularizers}
    if old.objective == config.objective:
        same.add("objective")
    for name, hook in game.hooks:
        if name in same:
            hook.load_state_dict(saved["hooks"][name])
            hook.to(game.draws.device)
        elif [*hook.buffers()]:
            fresh[name] = "there it is not, or has other options"


def _shapes(given: Tensor, value: Tensor) -> str:
    return f"it is {tuple(given.shape)} there, {tuple(value.shape)} here"


def _reasons(fresh: Mapping[str, str]) -> str:
    return listed((f"{name} ({why})" for name, why in fresh.items()), _NAMED)
