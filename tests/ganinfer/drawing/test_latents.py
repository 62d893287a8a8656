from pathlib import Path

import numpy as np
import pytest
from scipy import special, stats

from ganinfer.drawing.latents import (
    _centred_uniforms,
    draw_labels,
    draw_labels_by_counts,
    draw_latents,
    seed_array,
    slerp,
)
from ganinfer.drawing.philox import philox4x32, random_words
from ganinfer.errors import RequestError

GOLDEN = Path(__file__).with_name("golden_latents.npz")
GOLDEN_SEEDS = [0, 1, 2, 1234567890123, 2**64 - 1]


def words(*values: int) -> np.ndarray:
    return np.array(values, np.uint32)[:, None]


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # known-answer vectors published with Random123
        (
            (0, 0, 0, 0),
            (0, 0),
            (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
        ),
        (
            (0xFFFFFFFF,) * 4,
            (0xFFFFFFFF,) * 2,
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_vectors(counter, key, expected) -> None:
    result = philox4x32(words(*counter), words(*key))
    assert tuple(result[0].tolist()) == expected


def golden_arrays() -> dict[str, np.ndarray]:
    return {
        "normal": draw_latents(GOLDEN_SEEDS, 130),
        "uniform": draw_latents(GOLDEN_SEEDS, 130, distribution="uniform"),
        "resample": draw_latents(GOLDEN_SEEDS, 130, truncation=0.7),
        "scale": draw_latents(GOLDEN_SEEDS, 130, truncation=0.7, truncation_mode="scale"),
        "labels": draw_labels(GOLDEN_SEEDS, 1000),
    }


@pytest.mark.parametrize("count", [1, 4, 7, 128, 1000])
@pytest.mark.parametrize("stream", [0, 1, 2])
def test_one_seed_by_itself_gets_the_words_that_it_gets_among_others(count, stream) -> None:
    keys = seed_array([0, 1, 2**32 - 1, 2**32, 2**63 + 5, 2**64 - 1])
    together = random_words(keys, count, stream)
    for n in range(len(keys)):
        assert np.array_equal(random_words(keys[n : n + 1], count, stream), together[n : n + 1])


def test_latents_match_the_golden_file_bit_for_bit() -> None:
    with np.load(GOLDEN, allow_pickle=False) as golden:
        for name, array in golden_arrays().items():
            assert array.dtype == golden[name].dtype
            assert array.tobytes() == golden[name].tobytes(), name


def test_a_latent_does_not_depend_on_its_batch() -> None:
    together = draw_latents(range(1000), 7)
    for seed in (0, 1, 127, 128, 999):
        assert np.array_equal(draw_latents([seed], 7)[0], together[seed])
    assert np.array_equal(draw_latents(range(999, -1, -1), 7), together[::-1])


def test_a_shorter_latent_is_the_start_of_a_longer_one() -> None:
    assert np.array_equal(draw_latents(range(5), 128)[:, :50], draw_latents(range(5), 50))


def test_normal_latents_are_normal() -> None:
    z = draw_latents(range(2000), 64).ravel()
    assert stats.kstest(z, "norm").pvalue > 0.01


def test_quantiles_agree_with_scipy() -> None:

    centred = _centred_uniforms(seed_array(range(1000)), 100, 0)
    expected = special.ndtri(0.5 + centred).astype(np.float32)
    np.testing.assert_allclose(draw_latents(range(1000), 100), expected, rtol=2e-7, atol=1e-9)


@pytest.mark.parametrize("threshold", [0.02, 0.5, 1.0, 2.0, 5.0])
def test_resampled_latents_follow_the_truncated_normal(threshold: float) -> None:
    z = draw_latents(range(1000), 32, truncation=threshold).ravel()
    assert np.abs(z).max() <= threshold
    assert stats.kstest(z, stats.truncnorm(-threshold, threshold).cdf).pvalue > 0.01


def test_one_seed_moves_smoothly_as_truncation_grows() -> None:
    path = [draw_latents([3], 64, truncation=t)[0] for t in (0.5, 0.51, 4.0, 7.9, 8.0, 100.0)]
    assert np.abs(path[0] - path[1]).max() < 0.02
    np.testing.assert_allclose(path[3], path[4], atol=1e-6)
    assert np.array_equal(path[4], draw_latents([3], 64)[0])
    assert np.array_equal(path[5], path[4])


def test_scale_multiplies() -> None:
    scaled = draw_latents(range(4), 8, truncation=0.5, truncation_mode="scale")
    assert np.array_equal(scaled, draw_latents(range(4), 8) * np.float32(0.5))


def test_labels_are_uniform_and_in_range() -> None:
    labels = draw_labels(range(10_000), 10)
    assert stats.chisquare(np.bincount(labels, minlength=10)).pvalue > 0.01
    assert draw_labels(range(100), 1).max() == 0


def test_labels_come_as_often_as_they_count() -> None:
    labels = draw_labels_by_counts(range(10_000), [950, 0, 50])
    assert set(labels) == {0, 2}
    assert stats.binomtest(int((labels == 2).sum()), 10_000, 0.05).pvalue > 0.01
    part = draw_labels_by_counts(range(7000, 7100), np.array([950, 0, 50]))
    assert np.array_equal(part, labels[7000:7100])  # a seed's label is its own


def test_equal_counts_give_the_labels_that_seeds_draw_anyway() -> None:
    expected = draw_labels(range(10_000), 7)
    for count in (1, 3, 5417):
        assert np.array_equal(draw_labels_by_counts(range(10_000), [count] * 7), expected)


def test_labels_do_not_share_bits_with_latents() -> None:
    z = draw_latents(range(5000), 1, distribution="uniform")[:, 0]
    correlation = np.corrcoef(z, draw_labels(range(5000), 1000))[0, 1]
    assert abs(correlation) < 0.05


@pytest.mark.parametrize(
    "seeds", [[-1], [2**64], [1.5], ["7"], [[1, 2]], [True, False], np.array([0.5])]
)
def test_bad_seeds_are_refused(seeds) -> None:
    with pytest.raises(RequestError, match="seeds"):
        draw_latents(seeds, 4)


@pytest.mark.parametrize("truncation", [0, -1.0, float("nan"), float("inf"), "0.5"])
def test_bad_truncation_is_refused(truncation) -> None:
    with pytest.raises(RequestError, match="truncation"):
        draw_latents([0], 4, truncation=truncation)


def test_truncation_of_a_uniform_latent_is_refused() -> None:
    with pytest.raises(RequestError, match="uniform"):
        draw_latents([0], 4, distribution="uniform", truncation=0.5)


def test_no_seeds_give_no_latents() -> None:
    assert draw_latents([], 4).shape == (0, 4)


def test_slerp_keeps_the_norm_and_the_ends() -> None:
    a, b = draw_latents([0, 1], 256)
    path = slerp(a, b, np.linspace(0, 1, 11))
    np.testing.assert_allclose(path[[0, -1]], [a, b], rtol=1e-5, atol=1e-6)
    norms = np.linalg.norm(path, axis=1)
    assert norms.min() > 0.9 * min(norms[0], norms[-1])
    np.testing.assert_allclose(slerp(a, a, np.linspace(0, 1, 3)), [a, a, a], rtol=1e-5)
