"""What an objective or a regularizer may do to a game beside its loss.

N batch; F features; logits (N,). Images are (N, C, H, W) in [-1, 1], y int64 (N,) or None.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gantrain.models._base import DiscriminatorModule, GeneratorModule

if TYPE_CHECKING:
    from gantrain.data.dataset import Dataset
    from gantrain.game.players import Game


@dataclass
class View:
    """What D makes of some images: images as D saw them, features (N, F), logits (N,)."""

    images: Tensor
    features: Tensor
    logits: Tensor


@dataclass
class Step:
    """One step of one player. In G's step `real` is there only for those who set sees_real."""

    game: "Game"
    y: Tensor | None
    fake: View
    real_or_none: View | None

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

    def open_data(self, dataset: "Dataset", device: torch.device, seed: int) -> None:
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
