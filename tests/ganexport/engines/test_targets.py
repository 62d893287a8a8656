import importlib
import importlib.util

import pytest

from ganexport.engines import targets
from ganexport.engines.targets import check_precision, find_target
from ganinfer.errors import ExportError

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="pip install 'ganpipe[rtx]'"
)


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch):
    """tensorrt_rtx's module, which names its parts as tensorrt's does; an sm89 is there."""
    monkeypatch.setattr(targets, "compute_capability", lambda product: "sm89")
    return importlib.import_module("tensorrt_rtx")


def test_tensorrt_builds_for_this_gpu_its_capability_and_all_since_ampere(trt) -> None:
    found = [find_target(trt, "tensorrt", name) for name in ("current", "same-cc", "ampere+")]
    assert [target.name for target in found] == ["sm89", "same-cc-sm89", "ampere+"]
    levels = trt.HardwareCompatibilityLevel
    assert [t.level for t in found] == [None, levels.SAME_COMPUTE_CAPABILITY, levels.AMPERE_PLUS]


def test_ampere_and_newer_is_not_built_on_what_is_older(
    trt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "compute_capability", lambda product: "sm75")
    with pytest.raises(ExportError, match="has to be built on sm80 or newer, this GPU is sm75"):
        find_target(trt, "tensorrt", "ampere+")


@pytest.mark.parametrize("target", ["ampere+", "same-cc"])
def test_rtx_is_asked_for_a_portable_engine_instead(trt, target: str) -> None:
    with pytest.raises(ExportError, match=rf"target {target[:4]}.*--trt-target portable"):
        find_target(trt, "tensorrt_rtx", target)


def test_tensorrt_builds_for_no_gpu_that_is_elsewhere(trt) -> None:
    with pytest.raises(ExportError, match="target sm120: .* for current, ampere\\+, same-cc"):
        find_target(trt, "tensorrt", "sm120")


@pytest.mark.parametrize("target", ["sm86", "same-cc-sm80", "ampere+"])
def test_float8_is_refused_for_targets_with_a_gpu_that_has_none(target: str) -> None:
    with pytest.raises(ExportError, match="fp8 needs sm89 or newer"):
        check_precision(target, "fp8")
    check_precision(target, "fp16")


@pytest.mark.parametrize("target", ["sm89", "sm120", "same-cc-sm90", "portable"])
def test_float8_is_built_for_the_others(target: str) -> None:
    check_precision(target, "fp8")
