"""The game of two networks, what each of them wants, and the parts that may change it.

An objective has two losses; it and every regularizer have the Hooks; a Game puts them together.
N batch; F features; z (N, Z) latents; y int64 (N,) labels or None; images (N, C, H, W) in [-1, 1];
logits (N,).
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ganinfer.errors import ConfigError
from gantrain.data.dataset import Dataset
from gantrain.game.draws import Draws
from gantrain.models._base import DiscriminatorModule, GeneratorModule


def in_float32(device: torch.device) -> AbstractContextManager[object]:
    """A context without autocast. Only then entered: torch keeps no compiled graph that does."""
    entered = torch.is_autocast_enabled(device.type)
    return torch.autocast(device.type, enabled=False) if entered else nullcontext()


@dataclass
class View:
    """What D makes of some images: images as D saw them, features (N, F), logits (N,)."""

    images: Tensor
    features: Tensor
    logits: Tensor


@dataclass
class Step:
    """One step of one player. In G's step `real` is there only for those who set sees_real.

    z (N, Z) is what the generated images were drawn from.
    """

    game: "Game"
    y: Tensor | None
    fake: View
    real_or_none: View | None
    z: Tensor | None = None

    @property
    def real(self) -> View:
        """D's view of the real images."""
        assert self.real_or_none is not None, "set sees_real"
        return self.real_or_none


class Hooks(nn.Module):
    """Every hook does nothing unless it is overridden. State is kept in buffers.

    Attributes:
        sees_real: G's step needs D's view of the real images too.
        differentiates_images: a penalty takes D's gradient with respect to the Step's images.
        differentiates_twice: a penalty differentiates a gradient, of these images or of others.
        keeps_lipschitz: it bounds the slope of D.
        changes_last: its change of a network comes after those of all others.
        replaces_generator_loss: G's penalty stands in the place of the objective's loss.
    """

    sees_real = False
    differentiates_images = False
    differentiates_twice = False
    keeps_lipschitz = False
    changes_last = False
    replaces_generator_loss = False

    def change_generator(self, generator: GeneratorModule) -> None:
        """Change the architecture, before training and again whenever G is loaded."""

    def change_discriminator(self, discriminator: DiscriminatorModule) -> None:
        """Change the architecture, before training and again whenever D is loaded."""

    def refuses(self, game: "Game") -> str | None:
        """Why this cannot be part of that game, and what to do; None if it can."""
        return None

    def open_data(self, dataset: Dataset, device: torch.device, seed: int) -> None:
        """Take what is needed of the dataset, once, before training."""

    def augment(self, images: Tensor, game: "Game") -> Tensor:
        """What D is shown in place of its images, real and generated, in both steps."""
        return images

    def discriminator_penalty(self, step: Step) -> Tensor | float:
        """A scalar to add to D's loss."""
        return 0.0

    def generator_penalty(self, step: Step) -> Tensor | float:
        """A scalar to add to G's loss."""
        return 0.0

    def after_discriminator_step(
        self, game: "Game", real_logits: Tensor, fake_logits: Tensor
    ) -> None:
        """Change D, or this part's own state, after D's optimizer has stepped.

        The logits are those of the step's whole batch in this process, all microbatches together.
        """

    def stats(self) -> dict[str, float]:
        """Figures of this part's state, for stats.jsonl."""
        return {}


class Objective(Hooks):
    """Two losses; both are minimised.

    Attributes:
        paired: both losses get the differences s(x_i) - s(G(z_i)) and s(G(z_i)) - s(x_i) in the
            place of the logits.
        zero_point: logits above 0 mean real, below 0 generated.
        log_odds: D(x) = sigmoid(logit) is the probability that x is real.
    """

    paired = False
    zero_point = True
    log_odds = False

    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Logits (N,) of real and generated images -> scalar."""
        raise NotImplementedError

    def generator_loss(self, fake_logits: Tensor) -> Tensor:
        """Logits (N,) of generated images -> scalar."""
        raise NotImplementedError


class Game:
    """Two players, an objective and any number of regularizers.

    Attributes:
        hooks: the objective and the regularizers by name, in the order of the config.
        draws: the random numbers. num_classes: 0 in an unconditional game.
        points: the data are points, of one pixel each, and no images.
        images_seen: how many real images D has been shown; `train` keeps it.
        rounds: how often both players have had their turn; likewise.
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
        self.images_seen, self.rounds = 0, 0
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
        with in_float32(images.device):
            for _, hook in self.hooks:
                images = hook.augment(images, self)
        return images

    def discriminator_loss(
        self, real: Tensor, fake: Tensor, y: Tensor | None, z: Tensor | None = None
    ) -> tuple[Tensor, Step]:
        """D's loss on a batch of real and one of generated images (without a gradient to G).

        z: what these were drawn from, for those parts that draw others near them.
        """
        real, fake = self.augment(real), self.augment(fake)
        if any(hook.differentiates_images for _, hook in self.hooks):
            real, fake = real.detach().requires_grad_(), fake.detach().requires_grad_()
        step = Step(self, y, fake=self._view(fake, y), real_or_none=self._view(real, y), z=z)
        loss = self.objective.discriminator_loss(*self._compare(step.real.logits, step.fake.logits))
        for _, hook in self.hooks:
            loss = loss + hook.discriminator_penalty(step)
        return loss, step

    def generator_loss(self, z: Tensor, y: Tensor | None, real: Tensor) -> Tensor:
        """G's loss on a batch of latents; real images for those parts that compare with them."""
        fake = self._view(self.augment(self.generator(z, y).float()), y)
        sees_real = any(hook.sees_real for _, hook in self.hooks)
        step = Step(self, y, fake, self._view(self.augment(real), y) if sees_real else None, z)
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
