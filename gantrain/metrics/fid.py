"""Frechet distance between real and generated features (Heusel et al., 1706.08500)."""

from collections.abc import Callable

import torch
from torch import Tensor

from gantrain.metrics._measured import Measured
from gantrain.metrics._moments import Moments, frechet_distance
from gantrain.metrics._neighbours import some_features
from gantrain.metrics._reference import Reference
from gantrain.metrics._score import Better, Parts, Score

NEEDS = ("features",)
BETTER: dict[str, Better] = {"fid": "lower"}


def scores(reference: Reference, fake: Measured) -> dict[str, Score]:
    """{"fid"}: the distance to the whole dataset; lower is better, 0 at equal moments.

    It falls with the number of images, and is comparable only between equal numbers, extractors,
    resizers and datasets.
    """
    return {"fid": distance(reference.moments, fake.moments, some_features(fake))}


def parts(reference: Reference, fake: Measured) -> Parts:
    """FID's change with each generated image; {} if there are too few images for it.

    Resampling the images themselves would double FID's bias in 1/N; resampling these does not.
    """
    if min(reference.moments.num_images, len(fake)) <= len(reference.moments.mean):
        return {}
    influence = influence_of(reference.moments, fake.moments)
    if influence is None:
        return {}
    chunks = (torch.from_numpy(chunk) for chunk in fake.stream("features"))
    found = [influence(chunk.to(fake.device).double()) for chunk in chunks]
    return {"fid": torch.cat(found).cpu().numpy()}


def distance(real: Moments, fake: Moments, features: Tensor) -> Score:
    """The Frechet distance with its error, or with a warning where images are too few.

    Args:
        real, fake: the moments.
        features: float64 (M, F), generated ones, from which the error is taken.
    """
    value, num_features = frechet_distance(real, fake), len(real.mean)
    fewest = min(real.num_images, fake.num_images)
    if fewest > num_features:
        return Score(value, standard_error(real, fake, features), fake.num_images)
    note = (
        f"{fewest:,} images for {num_features:,} features: the covariance is singular, and FID is"
        f" biased upwards; take more than {num_features:,}, and 50,000 to compare with papers"
    )
    return Score(value, None, fake.num_images, note)


def standard_error(real: Moments, fake: Moments, features: Tensor) -> float | None:
    """How far sampling the generator again would move the distance, by the delta method.

    Args:
        real, fake: the moments, of which the fake ones' covariance is not singular.
        features: float64 (M, F), generated ones.

    Returns:
        The error at fake.num_images images; None if the covariance is singular.
    """
    influence = influence_of(real, fake)
    return None if influence is None else float(influence(features).std() / fake.num_images**0.5)


def influence_of(real: Moments, fake: Moments) -> Callable[[Tensor], Tensor] | None:
    """Features float64 (M, F) of generated images -> how each moves the distance, (M,).

    The distance changes with image x by 2 (m2 - m1).c + c^T (I - T) c, c = x - m2, where
    T = L2^-T (L2^T S1 L2)^1/2 L2^-1 is the optimal transport map between the two Gaussians.

    Returns:
        The function; None if the fake ones' covariance is singular.
    """
    lower = fake.factor
    if lower.shape[0] != lower.shape[1] or not torch.equal(lower, lower.tril()):
        return None
    values, vectors = torch.linalg.eigh(lower.T @ real.covariance @ lower)

    def influence(features: Tensor) -> Tensor:
        centred = features - fake.mean
        whitened = torch.linalg.solve_triangular(lower, centred.T, upper=False).T @ vectors
        transported = whitened.square() @ values.clamp(min=0).sqrt()
        by_mean = 2 * centred @ (fake.mean - real.mean)
        moved: Tensor = by_mean + centred.square().sum(1) - transported
        return moved

    return influence
