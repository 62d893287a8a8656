"""StyleGAN2's modulated convolution.

Karras, Laine, Aittala, Hellsten, Lehtinen, Aila, Analyzing and Improving the Image Quality of
StyleGAN, 1912.04958.

    equation 1  W'_oik = s_i W_oik
    equation 3  W''_oik = W'_oik / sqrt(sum_ik W'_oik^2 + 1e-8)

N batch; I, O channels in and out.
"""

import torch
from torch import Tensor, nn

from gantrain.models._derived import Layer

LEAST_SCALE = 1e-2  # of a scale that is divided by; demodulation takes it out again


class Modulated(Layer):
    """A convolution of weight (O, I, k, k) that is modulated and demodulated.

    A style scales the weights of each image differently. Here it scales the maps instead: those
    that go in by s, those that come out by the demodulation, and all images share one convolution.
    """

    weight: nn.Parameter
    kernel: Tensor
    squares: Tensor
    epsilon: Tensor

    def derive(self) -> dict[str, Tensor]:
        # Demodulation takes out any scale of the weights and of s. Of length 1 and of at most 1,
        # they let half precision neither overflow nor lose the sum of squares. What is taken out
        # again has no gradient.
        length = self.weight.detach().flatten(1).norm(dim=1).clamp(min=LEAST_SCALE)
        kernel = self.weight / length[:, None, None, None]
        return {
            "kernel": kernel,
            "squares": kernel.square().sum((2, 3)).T,
            "epsilon": 1e-8 / length.square(),
        }

    def modulation(self, style: Tensor, own: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Of styles (N, I), and what is derived: scales of the maps, each (N, C, 1, 1).

        The first is of the maps that go in, the second of those that come out.
        """
        largest = style.detach().abs().amax(dim=1, keepdim=True).clamp(min=LEAST_SCALE)
        style = style / largest
        power = style.square() @ own["squares"] + own["epsilon"] / largest.square()
        return style[:, :, None, None], torch.rsqrt(power)[:, :, None, None]
