"""What the table of GPUs and the defaults beside it say is what the code does."""

import re

import pytest
import torch
from pages import ROOT

from ganexport.engines.targets import CURRENT, check_precision, default_targets
from ganinfer.backends._onnxruntime_cuda import cuda
from ganinfer.backends._tensorrt_library import AMPERE_PLUS, PORTABLE, fits
from ganinfer.errors import ExportError
from gantrain.game.config import TrainConfig

PAGE = (ROOT / "docs" / "compatibility.md").read_text()
SECTION = PAGE.partition("### Cards\n")[2].partition("\n## ")[0]
ROWS = [
    [c.strip() for c in line.split("|")[1:-1]] for line in SECTION.splitlines() if "| sm" in line
]


def test_the_table_holds_the_cards_of_four_architectures() -> None:
    assert [row[0] for row in ROWS] == [
        "Ampere",
        "Ampere",
        "Ada",
        "Hopper",
        "Blackwell",
        "Blackwell",
    ]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[1])
def test_a_row_is_what_targets_allow(row: list[str]) -> None:
    _, number, _, _, float8, ampere_plus, _ = row
    assert (ampere_plus == "yes") == fits(AMPERE_PLUS, number)
    if float8 == "yes":
        check_precision(number, "fp8")
    else:
        with pytest.raises(ExportError, match="fp8 needs sm89"):
            check_precision(number, "fp8")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[1])
def test_a_row_is_what_tensorrt_rtx_builds_for(row: list[str]) -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    known = row[1].upper() in trt.ComputeCapability.__members__
    assert known == (not row[-1].startswith("no"))


def test_the_defaults_are_those_that_are_told() -> None:
    words = " ".join(SECTION.split())
    told = re.findall(r"`(precision|channels_last|compile) = \"?([\w]+)\"?`", words)
    defaults = {name: TrainConfig.model_fields[name].default for name, _ in told}
    assert defaults == {"precision": "fp32", "channels_last": False, "compile": "off"}
    assert torch.backends.cudnn.allow_tf32
    assert torch.get_float32_matmul_precision() == "highest"
    assert cuda("cuda:0")[1]["use_tf32"] == "0"
    assert default_targets("tensorrt") == [CURRENT]
    assert default_targets("tensorrt_rtx") == [PORTABLE]
