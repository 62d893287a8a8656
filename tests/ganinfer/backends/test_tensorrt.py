import pytest

from ganinfer.backends.tensorrt import fits, profile_for

TWO = [[1, 1, 8], [8, 64, 256]]
APART = [[64, 64, 128], [1, 2, 4]]


@pytest.mark.parametrize(
    ("batch", "profiles", "chosen"),
    [
        (1, TWO, 0),
        (8, TWO, 0),  # both cover it; 1 is nearer than 64
        (9, TWO, 1),
        (256, TWO, 1),
        (8, [[1, 256, 256], [1, 4, 256]], 1),
        (3, APART, 1),
        (5, APART, 0),  # neither covers it: padded to 64
        (2, [[4, 8, 16]], 0),
    ],
)
def test_a_batch_takes_the_profile_that_covers_it_with_the_nearest_likeliest_batch(
    batch: int, profiles: list[list[int]], chosen: int
) -> None:
    assert profile_for(batch, profiles) == chosen


@pytest.mark.parametrize(
    ("target", "capability", "fit"),
    [
        ("portable", "sm120", True),
        ("sm89", "sm89", True),
        ("sm89", "sm90", False),
        ("same-cc-sm86", "sm86", True),
        ("same-cc-sm86", "sm89", False),
        ("ampere+", "sm75", False),
        ("ampere+", "sm80", True),
        ("ampere+", "sm120", True),
    ],
)
def test_an_engine_fits_the_gpus_that_its_target_names(
    target: str, capability: str, fit: bool
) -> None:
    assert fits(target, capability) is fit
