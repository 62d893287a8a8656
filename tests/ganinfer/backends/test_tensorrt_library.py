import pytest

from ganinfer.backends._tensorrt_library import fits


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
