"""The game: two networks, what each wants, and the two losses that follow.

N batch; z (N, Z) latents; y int64 (N,) labels or None; images (N, C, H, W) in [-1, 1]; logits (N,).
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ganinfer.errors import ConfigError
from gantrain.game.config import Config
from gantrain.game.draws import Draws
from gantrain.game.hooks import Hooks, Step, View
from gantrain.game.objective import Base as Objective
from gantrain.models._base import DiscriminatorModule, GeneratorModule

# Layers in which one example's output depends on the others.
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)


class Game:
    """Two players, an objective and any number of regularizers.

    Attributes:
        hooks: the objective and the regularizers by name, in the order of the config.
        draws: the random numbers. num_classes: 0 in an unconditional game.
        points: the data are points, of one pixel each, and no images.
        images_seen: how many real images D has been shown; `train` keeps it.
    """

    def __init__(
        self,
        generator: GeneratorModule,
        discriminator: DiscriminatorModule,
        objective: Objective,
        regularizers: Iterable[tuple[str, Hooks]],
        draws: Draws,
        *,
        num_classes: int = 0,
        points: bool = False,
    ) -> None:
        """Networks that the regularizers have changed already.

        Raises:
            ConfigError: two parts of the game exclude each other; the message names them.
        """
        self.generator, self.discriminator = generator, discriminator
        self.objective, self.draws = objective, draws
        self.num_classes, self.points = num_classes, points
        self.images_seen = 0
        self.hooks: list[tuple[str, Hooks]] = [("objective", objective), *regularizers]
        for name, hook in self.hooks:
            hook.to(draws.device)
            if reason := hook.refuses(self):
                place = "[objective]" if hook is objective else f"[[regularizers]] {name}"
                raise ConfigError(f"{place}: {reason}")

    def named(self, name: str) -> Any:
        """The regularizer of that name, or None."""
        return next((hook for other, hook in self.hooks if other == name), None)

    def augment(self, images: Tensor) -> Tensor:
        """What D is shown in place of the images; in float32, for geometry needs it."""
        with torch.autocast(images.device.type, enabled=False):
            for _, hook in self.hooks:
                images = hook.augment(images, self)
        return images

    def discriminator_loss(
        self, real: Tensor, fake: Tensor, y: Tensor | None
    ) -> tuple[Tensor, Step]:
        """D's loss on a batch of real and one of generated images (without a gradient to G)."""
        real, fake = self.augment(real), self.augment(fake)
        if any(hook.differentiates_images for _, hook in self.hooks):
            real, fake = real.detach().requires_grad_(), fake.detach().requires_grad_()
        step = Step(self, y, fake=self._view(fake, y), real_or_none=self._view(real, y))
        loss = self.objective.discriminator_loss(*self._compare(step.real.logits, step.fake.logits))
        for _, hook in self.hooks:
            loss = loss + hook.discriminator_penalty(step)
        return loss, step

    def generator_loss(self, z: Tensor, y: Tensor | None, real: Tensor) -> Tensor:
        """G's loss on a batch of latents; real images for those parts that compare with them."""
        fake = self._view(self.augment(self.generator(z, y).float()), y)
        sees_real = any(hook.sees_real for _, hook in self.hooks)
        step = Step(self, y, fake, self._view(self.augment(real), y) if sees_real else None)
        loss = torch.zeros((), device=z.device)
        if not any(hook.replaces_generator_loss for _, hook in self.hooks):
            real_logits = step.real.logits if self.objective.paired else fake.logits
            loss = self.objective.generator_loss(self._compare(real_logits, fake.logits)[1])
        for _, hook in self.hooks:
            loss = loss + hook.generator_penalty(step)
        return loss

    def _view(self, images: Tensor, y: Tensor | None) -> View:
        features = self.discriminator.features(images)
        return View(images, features, self.discriminator.head(features, y).float())

    def _compare(self, real_logits: Tensor, fake_logits: Tensor) -> tuple[Tensor, Tensor]:
        if self.objective.paired:
            return real_logits - fake_logits, fake_logits - real_logits
        return real_logits, fake_logits


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


def batch_norm_of(network: nn.Module) -> str | None:
    """The name of the first batch norm in a network."""
    return next((n for n, layer in network.named_modules() if isinstance(layer, BATCH_NORMS)), None)
