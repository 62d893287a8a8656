"""Top-k training: Sinha et al., Top-k Training of GANs, 2002.06224.

G learns from the k images of its batch alone that D takes most for real: the gradients of the worst
point away from the nearest mode. k falls from the whole batch, by a factor each epoch, to a share
of it.
"""

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from gantrain.data.dataset import Dataset
from gantrain.game.parts import Game, Hooks, Step

Share = Annotated[float, Field(gt=0, le=1)]


class Regularizer(Hooks):
    """k = batch * max(final, decay ** epochs); each process and microbatch takes its own k."""

    replaces_generator_loss = True

    def __init__(self, *, decay: Share = 0.99, final: Share = 0.5) -> None:
        super().__init__()
        self._decay, self._final = decay, final
        self._epoch_images = math.inf
        self._share = 1.0

    def refuses(self, game: Game) -> str | None:
        """A game of pairs, and another part that makes G's loss."""
        if game.objective.paired:
            return "[objective] compares images in pairs, of which none can be left out"
        others = [n for n, h in game.hooks if h is not self and h.replaces_generator_loss]
        return f"{others[0]} makes G's loss already; leave one of the two out" if others else None

    def open_data(self, dataset: Dataset, device: torch.device, seed: int) -> None:
        """The length of an epoch."""
        self._epoch_images = len(dataset)

    def generator_penalty(self, step: Step) -> Tensor:
        """G's loss on the best k."""
        epochs = step.game.images_seen // self._epoch_images
        self._share = max(self._final, self._decay**epochs)
        logits = step.fake.logits
        k = math.ceil(self._share * len(logits))
        best = logits.flatten(1).mean(1).topk(k) if logits.ndim > 1 else logits.topk(k)
        return step.game.objective.generator_loss(logits[best.indices])

    def stats(self) -> dict[str, float]:
        """The share of the batch that G learns from."""
        return {"top_k_share": self._share}
