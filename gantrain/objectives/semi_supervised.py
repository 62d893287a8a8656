"""The K+1-class GAN: Salimans et al., Improved Techniques for Training GANs, 1606.03498, section 5.

D classifies real images into K classes, generated ones into a K+1st whose logit is fixed at 0:
D(x) = Z(x) / (Z(x) + 1), Z = sum_k exp l_k(x), so the game's logit is logsumexp_k l_k(x). To the
game's loss comes the cross-entropy on the few images whose labels are known.
"""

from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from ganinfer.errors import ConfigError
from gantrain.data.dataset import Dataset
from gantrain.distributed import world_size
from gantrain.game.parts import Game, Step
from gantrain.models._base import DiscriminatorModule
from gantrain.models._layers import Head
from gantrain.objectives import nonsaturating
from gantrain.regularizers._head import WidenedHead

Count = Annotated[int, Field(ge=1)]


class ClassHead(Head):
    """Features (N, F) -> class logits (N, K) by `classify`, the game's logits (N,) by a call."""

    def __init__(self, num_features: int, num_outputs: int) -> None:
        super().__init__(num_features, 0, num_outputs=num_outputs)

    def forward(self, features: Tensor, y: Tensor | None = None) -> Tensor:
        return torch.logsumexp(self.classify(features), dim=1)

    def classify(self, features: Tensor) -> Tensor:
        """Features (N, F) -> class logits (N, K)."""
        logits: Tensor = self.to_logit(features).float()
        return logits


class Objective(nonsaturating.Objective):
    """num_labels images, equally many of each class, keep their labels; all lose them in the game.

    The paper trains G by feature matching alone: add that regularizer.
    """

    def __init__(
        self,
        *,
        num_classes: Annotated[int, Field(ge=2)] = 10,
        num_labels: Count = 100,
        labelled_batch_size: Count = 100,
        label_seed: Annotated[int, Field(ge=0)] = 0,
    ) -> None:
        super().__init__()
        self._num_classes, self._num_labels = num_classes, num_labels
        self._labelled_batch_size, self._label_seed = labelled_batch_size, label_seed
        self._images, self._labels = torch.empty(0), torch.empty(0, dtype=torch.int64)

    def change_discriminator(self, discriminator: DiscriminatorModule) -> None:
        """K logits in the place of one."""
        head: Any = discriminator.head
        discriminator.head = ClassHead(head.num_features, self._num_classes)

    def refuses(self, game: Game) -> str | None:
        """A conditional game: the labels would give the answer away."""
        if game.num_classes:
            return "D finds the class itself; set conditional = false under [model]"
        return None

    def open_data(self, dataset: Dataset, device: torch.device, seed: int) -> None:
        """Keep the labelled images, num_labels / K of each class."""
        if dataset.labels is None or dataset.num_classes != self._num_classes:
            raise ConfigError(
                f"[objective] num_classes: found {self._num_classes}, and {dataset.path} has"
                f" {dataset.num_classes} classes; set it to that number"
            )
        order = np.random.default_rng(self._label_seed).permutation(len(dataset))
        each, rest = divmod(self._num_labels, self._num_classes)
        if rest:
            raise ConfigError(
                f"[objective] num_labels: found {self._num_labels}; expected a multiple of the"
                f" {self._num_classes} classes"
            )
        labels = np.asarray(dataset.labels)
        chosen = np.concatenate(
            [order[labels[order] == k][:each] for k in range(self._num_classes)]
        )
        self._images = dataset.floats(chosen).to(device)
        self._labels = torch.from_numpy(labels[chosen]).to(device)

    def discriminator_penalty(self, step: Step) -> Tensor:
        """Cross-entropy of a batch of labelled images."""
        game = step.game
        whole = min(self._labelled_batch_size, len(self._labels))
        size = max(whole // world_size(), 1)
        rows = game.draws.integers(len(self._labels), size)
        features = game.discriminator.features(game.augment(self._images[rows]))
        logits = classify(game.discriminator, features)
        return nn.functional.cross_entropy(logits, self._labels[rows])


def classify(discriminator: DiscriminatorModule, features: Tensor) -> Tensor:
    """Features (N, F) -> class logits (N, K).

    Raises:
        ConfigError: D was not trained to classify.
    """
    head = discriminator.head
    while isinstance(head, WidenedHead):
        features, head = head.more(features), head.head
    if not isinstance(head, ClassHead):
        raise ConfigError("this discriminator knows no classes: [objective] is not semi_supervised")
    return head.classify(features)
