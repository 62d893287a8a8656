import numpy as np
import pytest

from ganexport.proof.confidence import (
    Resampled,
    mean_interval,
    psnr_interval,
    remark,
)
from ganinfer.bundle.witness import frechet_distance

SCALES = np.exp(-np.arange(6) / 3)


def features(rng: np.random.Generator, num_images: int = 400) -> np.ndarray:
    return rng.normal(size=(num_images, 6)) * SCALES


def fault(torch_a: np.ndarray) -> np.ndarray:
    return torch_a * 1.03 + 0.02


def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return x.mean(axis=0), np.cov(x.T)


def covered(found: list[tuple[float, float]], truth: float) -> float:
    return float(np.mean([low <= truth <= high for low, high in found]))


def test_the_interval_of_a_share_covers_the_true_share() -> None:
    """Nine times in ten at least; plain percentiles, whose floors count twice, hardly ever do."""
    rng = np.random.default_rng(0)
    population = features(rng, 200_000)
    pairs = [(features(rng), features(rng)) for _ in range(40)]
    floors = [frechet_distance(moments(a), moments(b)) for a, b in pairs]
    truth = frechet_distance(moments(population), moments(fault(population))) / np.mean(floors)
    found = []
    for (a, b), floor in zip(pairs, floors, strict=True):
        share = float(frechet_distance(moments(a), moments(fault(a))) / floor)
        known = Resampled(a, b).share(share, fault(a))
        interval = known.interval
        assert interval is not None
        assert known.lasting > 0.8
        assert interval[0] < share < interval[1]
        found.append(interval)
    assert covered(found, truth) >= 0.85


def test_the_interval_of_a_change_of_fid_covers_the_true_change() -> None:
    rng = np.random.default_rng(1)
    population = features(rng, 200_000)
    real = moments(features(rng, 5000) + 0.3)
    truth = frechet_distance(real, moments(fault(population))) - frechet_distance(
        real, moments(population)
    )
    found = []
    for _ in range(40):
        a = features(rng)
        change = frechet_distance(real, moments(fault(a))) - frechet_distance(real, moments(a))
        found.append(Resampled(a, a).fid_change(float(change), real, fault(a)))
    assert covered(found, abs(truth)) >= 0.85


def test_the_interval_of_a_mean_is_that_of_its_standard_error() -> None:
    values = np.random.default_rng(2).normal(5, 1, (1000, 4))
    interval = mean_interval(values)
    assert interval is not None
    error = values.mean(axis=1).std() / np.sqrt(1000)
    expected = (values.mean() - 1.96 * error, values.mean() + 1.96 * error)
    assert interval == pytest.approx(expected, abs=0.3 * error)
    assert interval == mean_interval(values)  # the same draws every time


def test_what_rounding_makes_of_single_images_does_not_last() -> None:
    rng = np.random.default_rng(4)
    a, b = features(rng), features(rng)
    noisy = a + 0.02 * rng.normal(size=a.shape)
    share = float(
        frechet_distance(moments(a), moments(noisy)) / frechet_distance(moments(a), moments(b))
    )
    assert Resampled(a, b).share(share, noisy).lasting < 0.5


def test_where_all_images_are_equal_there_is_no_interval() -> None:
    assert mean_interval(np.zeros((10, 4))) is None
    assert psnr_interval(np.zeros((10, 4)), peak=2.0) is None
    same = np.ones((10, 3))
    assert Resampled(same, same).share(0.0, same).interval is None


def test_a_psnr_lies_within_its_interval() -> None:
    squares = np.random.default_rng(3).random((100, 4)) ** 2
    interval = psnr_interval(squares, peak=2.0)
    assert interval is not None
    assert interval[0] < 10 * np.log10(4 / squares.mean()) < interval[1]


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        (None, ""),
        ((0.01, 0.04), ""),
        ((0.2, 0.4), ""),
        ((0.04, 0.2), "too close to call"),
    ],
)
def test_a_limit_inside_the_interval_is_said(interval, words: str) -> None:
    assert remark(interval, 0.1) == words
