"""docs/draw.md says the numbers that ganinfer draws by, and known answers that are true."""

import re

import numpy as np
import pytest
from pages import ROOT, blocks

from ganinfer.drawing import normal
from ganinfer.drawing.latents import draw_labels, draw_latents, seed_array
from ganinfer.drawing.philox import MULTIPLIERS, WEYL, random_words

PAGE = ROOT / "docs/draw.md"
POLYNOMIALS, VECTORS, TAIL, FURTHER, SLIPS, MASSES = (
    block.text for block in blocks(PAGE) if block.language == "text"
)


def bits(numbers: np.ndarray) -> str:
    return " ".join(f"{word:08x}" for word in numbers.view(np.uint32))


def test_the_polynomials_are_those_of_the_sources() -> None:
    written = re.split(r"[A-E] ", POLYNOMIALS)[1:]
    expected = [*normal.CENTRAL, *normal.TAIL, normal.ARTANH]
    for text, polynomial in zip(written, expected, strict=True):
        fractions = [map(float, number.split("/")) for number in text.split()]
        numbers = [top / (bottom[0] if bottom else 1) for top, *bottom in fractions]
        assert numbers == [float(coefficient) for coefficient in polynomial]


def test_the_other_numbers_are_those_of_the_sources() -> None:
    text = PAGE.read_text()
    for word in (*MULTIPLIERS, *WEYL):
        assert f"0x{word:08X}" in text
    for number in (
        normal.SQUARE_AT,
        normal.TAIL_AT,
        normal.TAIL_FROM,
        normal.ROOT_HALF,
        normal.LN_2,
    ):
        assert f" {number!r}" in text


def test_the_known_answers_are_what_ganinfer_draws() -> None:
    lines = VECTORS.splitlines()
    assert len({line[:16] for line in lines}) == 16
    for line in lines:
        seed = [int(line[:16], 16)]
        words = bits(random_words(seed_array(seed), 4, stream=0)[0])
        z, cut = draw_latents(seed, 2)[0], draw_latents(seed, 2, truncation=0.7)[0]
        label = draw_labels(seed, 1000)[0]
        assert line == f"{seed[0]:016x}  {words}  {bits(z)}  {label:3d}  {bits(cut)}"


def test_the_steps_in_a_tail_are_those_of_the_ninth_seed() -> None:
    u, logarithm, r, x = (float(n) for n in re.findall(r"= (-?[\d.]+)", TAIL))
    (word,) = random_words(seed_array([int(VECTORS.splitlines()[8][:16], 16)]), 1, stream=0)[0]
    assert u == (float(word) - 2147483647.5) * 2.0**-32
    assert r == np.sqrt(-logarithm) - 1.6
    assert x == normal.normal_quantile(np.array([u]))[0]
    assert logarithm == pytest.approx(np.log(0.5 - u), rel=1e-15)
    assert TAIL.split()[-1] == bits(np.array([x], np.float32))


def test_the_further_answers_are_what_ganinfer_draws() -> None:
    drawn = {"normal": draw_latents([42], 512)}
    drawn["uniform"] = draw_latents([42], 512, distribution="uniform")
    for mode, t in (("scale", 0.7), ("resample", 0.7), ("resample", 2.5)):
        drawn[f"{mode} {t}"] = draw_latents([42], 512, truncation=t, truncation_mode=mode)
    expected = [f"{name:12}  {bits(z[0, [4, 99, 511]])}" for name, z in drawn.items()]
    assert FURTHER.splitlines() == expected


def test_what_shows_slips_is_what_ganinfer_draws() -> None:
    words = random_words(seed_array([42]), 512, stream=0)
    exact = normal.normal_quantile((words - 2147483647.5) * 2.0**-32)[0]
    scaled = draw_latents([42], 512, truncation=0.7, truncation_mode="scale")[0]
    in_float64 = draw_latents([42], 512)[0].astype(np.float64) * 0.7
    *numbers, scale = (line.split() for line in SLIPS.splitlines())
    for _, place, number in numbers:
        assert exact[int(place)] == float(number)
    assert scale[2] == bits(scaled[[int(scale[1])]])
    assert scale[2] != bits(in_float64[[int(scale[1])]].astype(np.float32))


def test_the_masses_are_those_of_ganinfer() -> None:
    for line in MASSES.splitlines():
        t, written = line.split()
        assert np.float64(normal.central_mass(float(t))).view(np.uint64) == int(written, 16)
