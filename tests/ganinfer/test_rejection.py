from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ganexport.pipeline import Exported
from ganinfer import Sampler
from ganinfer.drawing.latents import draw_labels, draw_latents, draw_uniforms
from ganinfer.errors import RequestError
from ganinfer.rejection import Judge, _f, accepted


@pytest.fixture(scope="module")
def sampler(judged: Exported) -> Iterator[Sampler]:
    with Sampler(judged.path) as opened:
        yield opened


def test_accepted_images_are_those_of_their_seeds(sampler: Sampler) -> None:
    images, seeds = accepted(sampler, 20, seed=5)
    assert len(images) == len(seeds) == 20
    assert seeds[0] >= 5
    assert (np.diff(seeds.astype(np.int64)) > 0).all()
    assert np.array_equal(images, sampler.sample(seeds=seeds))


def test_what_is_accepted_is_independent_of_the_batch_size(sampler: Sampler) -> None:
    images, seeds = accepted(sampler, 30)
    for size in (1, 7, 200):
        others, keys = accepted(sampler, 30, batch_size=size)
        assert np.array_equal(keys, seeds)
        assert np.array_equal(others, images)
    fewer, keys = accepted(sampler, 10, seed=int(seeds[10]))
    assert np.array_equal(keys, seeds[10:20])
    assert np.array_equal(fewer, images[10:20])


def test_without_gamma_it_is_rejection_sampling() -> None:
    """N(1/2, 1) out of N(0, 1): r = x / 2 - 1/8, and exp(r - M) is accepted."""
    r = np.linspace(-5, 3, 50)
    np.testing.assert_allclose(1 / (1 + np.exp(-_f(r, 3.0))), np.exp(r - 3), rtol=1e-6)
    x = draw_latents(range(100_000), 1)[:, 0].astype(np.float64)
    log_ratio = x / 2 - 1 / 8
    probability = 1 / (1 + np.exp(-_f(log_ratio, log_ratio.max())))
    kept = x[draw_uniforms(range(100_000)) < probability]
    assert kept.mean() == pytest.approx(0.5, abs=4 / len(kept) ** 0.5)
    assert kept.var() == pytest.approx(1.0, abs=0.05)


def test_half_of_the_images_at_the_percentile_are_accepted(sampler: Sampler) -> None:
    judge = Judge(sampler.bundle)
    y = draw_labels(range(2000), 3)
    images = sampler.sample(2000)
    ratio = judge.log_ratio(images, y)
    for percentile in (30, 80):
        at = judge.probability(images, y, percentile)
        assert np.mean(at > 0.5) == pytest.approx(1 - percentile / 100, abs=0.06)
        assert (np.diff(at[np.argsort(ratio)]) >= 0).all()


def test_accepted_images_have_higher_ratios(sampler: Sampler) -> None:
    judge = Judge(sampler.bundle)
    images, _ = accepted(sampler, 200, labels=1)
    y = np.ones(200, np.int64)
    plain = judge.log_ratio(sampler.sample(200, labels=1), y)
    assert judge.log_ratio(images, y).mean() > plain.mean() + plain.std() / 200**0.5


def test_no_images_and_a_class_by_name(sampler: Sampler) -> None:
    images, seeds = accepted(sampler, 0)
    assert images.shape == (0, 16, 16, 3)
    assert seeds.shape == (0,)
    by_name, keys = accepted(sampler, 3, labels="2", truncation=0.5)
    assert np.array_equal(by_name, sampler.sample(seeds=keys, labels=2, truncation=0.5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": [0, 1, 2]}, "the discriminator takes one class"),
        ({"labels": {"0": 0.5, "1": 0.5}}, "the discriminator takes one class"),
        ({"labels": "dog"}, "no such class"),
        ({"percentile": 101}, "percentile: found 101"),
        ({"truncation": -1.0}, "truncation"),
        ({"percentile": 100, "tries": 2}, r"accepted \d+ of 64 images, 3 are wanted"),
        ({"batch_size": 0}, "n 3, batch_size 0: expected"),
        ({"n": -1}, "n -1, batch_size 64: expected"),
    ],
)
def test_what_cannot_be_accepted_is_refused_in_words(sampler, arguments, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        accepted(sampler, **{"n": 3, **arguments})


def test_a_bundle_without_a_discriminator_names_the_option(bundle: Path) -> None:
    with Sampler(bundle) as opened, pytest.raises(RequestError, match="--with-discriminator"):
        accepted(opened, 1)


def test_the_numbers_that_decide_are_uniform_and_belong_to_the_seed() -> None:
    numbers = draw_uniforms(range(20_000))
    assert 0 < numbers.min() < numbers.max() < 1
    assert np.histogram(numbers, 10, (0, 1))[0] == pytest.approx(2000, abs=180)
    bits = ["0x1.98759de000000p-6", "0x1.ce68099f00000p-1", "0x1.65dfcf1900000p-1"]
    assert draw_uniforms([0, 1, 2**64 - 1]).tolist() == [float.fromhex(text) for text in bits]
