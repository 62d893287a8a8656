"""Layers that keep their weights while the others are trained.

Mo, Cho, Shin: Freeze the Discriminator: a Simple Baseline for Fine-Tuning GANs, 2002.10964: a D
that begins from another's weights keeps those of its lower layers, which see what all images have.
"""

import difflib
from collections.abc import Sequence

from torch import nn

from ganinfer.errors import ConfigError
from gantrain.game.parts import Game


def freeze(game: Game, names: Sequence[str], *, where: str) -> None:
    """Train no weight of these layers any more.

    Args:
        game: of two networks.
        names: of layers or of single weights, each behind its network's: "discriminator.downs.0".
        where: what to name in an error.

    Raises:
        ConfigError: there is no such layer, it has no weights, or nothing is left to train.
    """
    networks: dict[str, nn.Module] = {
        "generator": game.generator,
        "discriminator": game.discriminator,
    }
    weights = {
        f"{network}.{name}": weight
        for network, module in networks.items()
        for name, weight in module.named_parameters()
    }
    for name in names:
        found = [weight for key, weight in weights.items() if f"{key}.".startswith(f"{name}.")]
        if not found:
            raise ConfigError(f"{where}: {_unknown(name, list(weights))}")
        for weight in found:
            weight.requires_grad_(False)
    for network, module in networks.items():
        if not any(weight.requires_grad for weight in module.parameters()):
            raise ConfigError(f"{where}: nothing of the {network} is left to train; freeze less")


def _unknown(name: str, weights: Sequence[str]) -> str:
    """What is said of a name that no layer with weights has."""
    layers = {
        key.rsplit(".", depth)[0]
        for key in (weight.partition(".parametrizations")[0] for weight in weights)
        for depth in range(key.count("."))
    }
    close = difflib.get_close_matches(name, sorted(layers), n=3)
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    return f"there are no weights {name!r}; {hint}--dry-run shows the layers of both networks"
