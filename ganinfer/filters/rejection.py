"""What the bundle's discriminator accepts; see `ganinfer.rejection`."""

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ganinfer.drawing.latents import draw_uniforms
from ganinfer.filters import Filter
from ganinfer.formats import Batch
from ganinfer.rejection import Judge
from ganinfer.sampler import Sampler


def open(sampler: Sampler, *, least: Annotated[float, Field(ge=0, le=100)] = 80.0) -> Filter:
    """Load the discriminator.

    Args:
        sampler: of a bundle that was exported with its discriminator.
        least: percentile of F over the burn-in where half of the images are accepted.

    Raises:
        RequestError: the bundle has no discriminator.
    """
    judge = Judge(sampler.bundle)

    def keeps(batch: Batch) -> NDArray[np.bool_]:
        probability = judge.probability(batch.images, batch.labels, least)
        accepted: NDArray[np.bool_] = draw_uniforms(batch.seeds) < probability
        return accepted

    return Filter(f"rejection by the discriminator at percentile {least:g}", keeps)
