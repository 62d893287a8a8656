"""Layers that derive what they compute with, and StyleGAN2's modulation among them.

Karras, Laine, Aittala, Hellsten, Lehtinen, Aila, Analyzing and Improving the Image Quality of
StyleGAN, 1912.04958.

    equation 1  W'_oik = s_i W_oik
    equation 3  W''_oik = W'_oik / sqrt(sum_ik W'_oik^2 + 1e-8)

N batch; I, O channels in and out.
"""

import torch
from torch import Tensor, nn

LEAST_SCALE = 1e-2  # of a scale that is divided by; demodulation takes it out again


class Layer(nn.Module):
    """A layer that takes from its weights, whenever they are loaded, what it computes with.

    The weights keep their published names and values; gains, sums and tiled filters are worked out
    once, in float32, and are constants of the graph.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_load_state_dict_post_hook(_derive)  # type: ignore[no-untyped-call]

    def derive(self) -> None:
        """Work them out."""
        raise NotImplementedError

    def keep(self, name: str, value: Tensor) -> None:
        """Keep one as a buffer that is not in the state dict."""
        self.register_buffer(name, value.contiguous(), persistent=False)


@torch.no_grad()
def _derive(layer: nn.Module, _: object) -> None:
    assert isinstance(layer, Layer)
    layer.derive()


class Modulated(Layer):
    """A convolution of weight (O, I, k, k) that is modulated and demodulated.

    A style scales the weights of each image differently. Here it scales the maps instead: those
    that go in by s, those that come out by the demodulation, and all images share one convolution.
    """

    weight: nn.Parameter
    kernel: Tensor
    squares: Tensor
    epsilon: Tensor

    def derive(self) -> None:
        # Demodulation takes out any scale of the weights and of s. Of length 1 and of at most 1,
        # they let half precision neither overflow nor lose the sum of squares.
        length = self.weight.flatten(1).norm(dim=1).clamp(min=LEAST_SCALE)
        kernel = self.weight / length[:, None, None, None]
        self.keep("kernel", kernel)
        self.keep("squares", kernel.square().sum((2, 3)).T)
        self.keep("epsilon", 1e-8 / length.square())

    def modulation(self, style: Tensor) -> tuple[Tensor, Tensor]:
        """Styles (N, I) -> scales of the maps that go in (N, I, 1, 1) and come out (N, O, 1, 1)."""
        largest = style.abs().amax(dim=1, keepdim=True).clamp(min=LEAST_SCALE)
        style = style / largest
        power = style.square() @ self.squares + self.epsilon / largest.square()
        return style[:, :, None, None], torch.rsqrt(power)[:, :, None, None]
