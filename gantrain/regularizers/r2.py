"""R2: R1 on generated images. Mescheder, Geiger, Nowozin, 1801.04406, equation 10.

gamma / 2 * E ||grad s(G(z))||^2; with r1, the pair that R3GAN (2501.05441) needs to converge.
"""

from gantrain.game.parts import Step, View
from gantrain.regularizers import r1


class Regularizer(r1.Regularizer):
    """Pulls D to a constant where the generated images are."""

    def view(self, step: Step) -> View:
        """The generated images."""
        return step.fake
