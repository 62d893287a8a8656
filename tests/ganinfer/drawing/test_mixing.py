from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ganinfer import Sampler
from ganinfer.cli.options import parse_labels
from ganinfer.drawing.latents import draw_latents
from ganinfer.errors import RequestError


@pytest.fixture(scope="module")
def sampler(mixable: Path) -> Iterator[Sampler]:
    with Sampler(mixable) as opened:
        yield opened


def test_one_mixture_serves_all_images_and_a_list_each(sampler: Sampler) -> None:
    together = sampler.sample(3, labels={"0": 0.25, 2: 0.75})
    assert np.array_equal(sampler.sample(3, labels=[{0: 0.25, 2: 0.75}] * 3), together)
    each = sampler.sample(3, labels=[{"0": 0.25, "2": 0.75}, 1, {"2": 1.0}])
    assert np.array_equal(each[0], together[0])
    assert np.array_equal(each[1:], sampler.sample(seeds=[1, 2], labels=[1, 2]))
    assert not np.array_equal(together, sampler.sample(3, labels=2))


def test_the_image_of_a_mixture_is_independent_of_the_batch(sampler: Sampler) -> None:
    mixture = {"0": 0.3, "1": 0.3, "2": 0.4}
    together = sampler.sample(70, labels=mixture)
    for seed in range(0, 70, 9):
        assert np.array_equal(sampler.sample(1, seed=seed, labels=mixture)[0], together[seed])
    assert np.array_equal(np.concatenate([*sampler.stream(70, 7, labels=mixture)]), together)


def test_generate_takes_weights(sampler: Sampler) -> None:
    weights = np.array([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    expected = sampler.sample(2, labels=[{0: 0.5, 1: 0.5}, 2])
    assert np.array_equal(sampler.generate(draw_latents(range(2), 16), weights), expected)


def test_a_latent_goes_from_one_class_to_another(sampler: Sampler) -> None:
    path = sampler.interpolate(4, 4, 5, label="0", to_label={1: 0.5, 2: 0.5})
    halfway = {0: 0.5, 1: 0.25, 2: 0.25}
    expected = sampler.sample(seeds=[4] * 3, labels=[0, halfway, {1: 0.5, 2: 0.5}])
    assert np.array_equal(path[[0, 2, 4]], expected)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"0": 0.5, "1": 0.4}, r"sum to 0.9.*expected 0 or more, and a sum of 1"),
        ({"0": 1.5, "1": -0.5}, "the least is -0.5"),
        ({"0": float("nan")}, "sum to nan"),
        ({}, "sum to 0"),
        ({"0": "1"}, "weight '1' of class '0': expected a number"),
        ({"dog": 1.0}, "label 'dog': there is no such class"),
        ({7: 1.0}, "label 7: expected 0 to 2"),
        ([{"0": 1.0}], "found 1 for 2 images"),
    ],
)
def test_what_is_no_mixture_is_refused_in_words(sampler: Sampler, labels, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        sampler.sample(2, labels=labels)
    with pytest.raises(RequestError, match=message):
        sampler.stream(2, labels=labels)


def test_mixtures_are_written_with_colons_and_plus() -> None:
    classes = ["3", "8", "a:b"]
    found = parse_labels("3:0.5+8:0.5, 1, a:b, 0:1", classes)
    assert found == [{"3": 0.5, "8": 0.5}, 1, "a:b", {0: 1.0}]
    with pytest.raises(RequestError, match=r"labels 3:0.5\+8: expected classes and their weights"):
        parse_labels("3:0.5+8", classes)


def test_the_command_line_draws_mixtures(gan, mixable: Path, tmp_path: Path) -> None:
    drawn = gan(
        "sample", mixable, "--seeds", "0-3", "--labels", "0:0.5+2:0.5", "-o", tmp_path / "x.png"
    )
    assert drawn.returncode == 0, drawn.stderr
    assert (tmp_path / "x.png").exists()


def test_a_range_is_of_names_where_names_are_numbers() -> None:
    assert parse_labels("2-3", ["0", "1", "10", "11", "2", "3"]) == [4, 5]
    assert parse_labels("0-2", ["0", "1", "2"]) == [0, 1, 2]
    assert parse_labels("0-1", ["cat", "dog", "7"]) == [0, 1]
    with pytest.raises(RequestError, match="--labels 1-3: there is no class 2; expected .* 1, 3"):
        parse_labels("1-3", ["1", "3"])
