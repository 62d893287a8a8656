"""Layers that the architectures share.

N batch; C, H, W; Z latent; K classes. y is int64 (N,), never one-hot.
"""

from torch import Tensor, nn
from torch.nn.utils import parametrizations


class ConditionalBatchNorm2d(nn.Module):
    """Batch norm whose gain and bias belong to the class: BN(x) * (1 + gain[y]) + bias[y].

    (N, C, H, W), y -> (N, C, H, W). With K = 0 it is plain batch norm, and y is not looked at.
    """

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(num_features, affine=num_classes == 0)
        self.gain_and_bias: nn.Embedding | None = None
        if num_classes:
            self.gain_and_bias = nn.Embedding(num_classes, 2 * num_features)
            nn.init.zeros_(self.gain_and_bias.weight)

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        normal: Tensor = self.norm(x)
        if self.gain_and_bias is None:
            return normal
        gain_and_bias: Tensor = self.gain_and_bias(y)
        gain, bias = gain_and_bias[:, :, None, None].chunk(2, dim=1)
        return normal * (1 + gain) + bias


def spectral_norm(layer: nn.Module) -> nn.Module:
    """W / sigma(W), sigma by one power iteration a training forward (1802.05957)."""
    return parametrizations.spectral_norm(layer, eps=1e-6)


def init_normal(module: nn.Module, std: float) -> None:
    """DCGAN's start: the weights of all convolutions and linear layers N(0, std), biases 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(layer.weight, 0.0, std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
