"""What an objective does unless it says otherwise: no penalty, nothing after D's step."""

from torch import Tensor, nn


class Base:
    """The contract of an objective; see the package's docstring."""

    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Logits (N,) of real and generated images -> scalar."""
        raise NotImplementedError

    def generator_loss(self, fake_logits: Tensor) -> Tensor:
        """Logits (N,) of generated images -> scalar."""
        raise NotImplementedError

    def penalty(
        self, discriminator: nn.Module, real: Tensor, fake: Tensor, y: Tensor | None
    ) -> Tensor | float:
        """A scalar to add to D's loss; images (N, C, H, W), labels (N,) or None."""
        return 0.0

    def after_discriminator_step(self, discriminator: nn.Module) -> None:
        """Change D after its optimizer has stepped."""
