"""The auxiliary classifier of AC-GAN: Odena, Olah, Shlens, 1610.09585, equations 2 and 3.

D judges without the label, and beside that finds the class, of real and of generated images:
L_C = E[-log P(C = y | x)] + E[-log P(C = y | G(z, y))]. D minimises L_S + L_C, G its loss + L_C.
"""

from typing import Annotated

from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from gantrain.game.parts import Game, Hooks, Step
from gantrain.models._base import DiscriminatorModule
from gantrain.models._layers import ClassLogits, Head
from gantrain.regularizers._head import WidenedHead, inner_head

Weight = Annotated[float, Field(ge=0)]


class AuxiliaryHead(Head):
    """Features (N, F) -> logits (N,), whatever y is; and class logits (N, K) by `classify`."""

    def __init__(self, head: Head, num_classes: int) -> None:
        """In the place of a head that knew the label."""
        super().__init__(head.num_features, 0)
        self.to_logit.load_state_dict(head.to_logit.state_dict())
        self.to_classes = ClassLogits(head.num_features, num_classes)

    def classify(self, features: Tensor) -> Tensor:
        """Features (N, F) -> class logits (N, K)."""
        logits: Tensor = self.to_classes(features).float()
        return logits


class Regularizer(Hooks):
    """The weight is that of L_C; the paper's is 1."""

    def __init__(
        self, *, discriminator_weight: Weight = 1.0, generator_weight: Weight = 1.0
    ) -> None:
        super().__init__()
        self._discriminator_weight, self._generator_weight = discriminator_weight, generator_weight

    def change_discriminator(self, discriminator: DiscriminatorModule) -> None:
        """Put a head that finds the class in the place of one that is told it."""
        outer, head = inner_head(discriminator)
        if isinstance(head, Head) and head.embed is not None:
            outer.head = AuxiliaryHead(head, head.embed.num_embeddings)

    def refuses(self, game: Game) -> str | None:
        """A game without classes, or a D whose head is of another kind."""
        if not game.num_classes:
            return "the game has no classes to find; leave it out"
        if not isinstance(inner_head(game.discriminator)[1], AuxiliaryHead):
            return (
                "D's head is no linear one that a classifier can take the place of; leave it out,"
                " or take another model"
            )
        return None

    def discriminator_penalty(self, step: Step) -> Tensor:
        """L_C, for D."""
        lost = _lost(step, step.real.features) + _lost(step, step.fake.features)
        return self._discriminator_weight * lost

    def generator_penalty(self, step: Step) -> Tensor:
        """What of L_C depends on G."""
        return self._generator_weight * _lost(step, step.fake.features)


def _lost(step: Step, features: Tensor) -> Tensor:
    """E[-log P(C = y | image)]."""
    head = step.game.discriminator.head
    while isinstance(head, WidenedHead):
        features, head = head.more(features), head.head
    assert isinstance(head, AuxiliaryHead)
    assert step.y is not None
    return cross_entropy(head.classify(features), step.y)
