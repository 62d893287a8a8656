"""A recipe and a dataset's shape -> the Game."""

import torch

from ganinfer.errors import ConfigError
from gantrain.game.config import Config
from gantrain.game.draws import Draws
from gantrain.game.parts import Game


def build_game(
    config: Config, resolution: int, channels: int, num_classes: int, device: torch.device
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
            config.build_generator(*shape).to(device),
            config.build_discriminator(*shape).to(device),
            config.build_objective(),
            config.build_regularizers(),
            Draws(config.train.seed, device),
            num_classes=shape[2],
            points=resolution == 1,
        )
    except ConfigError as error:
        raise ConfigError(f"{config.where}: {error}") from None
    if config.train.truncation and game.generator.z_distribution != "normal":
        raise ConfigError(
            f"{config.where} [train] truncation: G's latent is uniform, and only a normal one can"
            " be truncated; leave it out"
        )
    return game
