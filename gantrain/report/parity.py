"""The parity section of the page: what each gate asks, what was found, and how sure that is."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ganinfer.bundle.archive import Bundle
from ganinfer.bundle.manifest import GateResult
from ganinfer.errors import BundleError
from gantrain.report.face import BAR_HEIGHT, BAR_MARGIN, BAR_WIDTH, bar
from gantrain.runs.checkpoint import TrainedGenerator

MEANINGS = {
    "error / rounding": "The error against torch in float64, over what rounding makes of it.",
    "max error": "The largest error of any pixel on [-1, 1], before it is rounded to uint8.",
    "PSNR, dB": "The mean squared error on [-1, 1], before rounding, in decibels below the peak.",
    "max uint8 step": "How far any pixel of any image is from torch's, of 255 steps.",
    "other classes, max uint8 step": "The same, of each class that the other gates have none of.",
    "PSNR uint8, dB": "The mean squared error of the uint8 images, in decibels below the peak.",
    "worst image uint8, dB": "The same of the image that is farthest off.",
    "alone and in a batch, dB": "Seeds alone, in twos, in threes against those in a batch.",
    "pixels off": "The share of pixels that differ from torch's at all.",
    "largest value / 65,504": "The network's largest value, over the largest in half precision.",
    "image shape": "The images have torch's height, width and channels.",
    "FID change": "How much nearer to the data, or farther, the shipped images are than torch's.",
    "paired FID / floor": "How far the shipped images are from torch's of the same seeds, as a"
    " share of how far torch's are from torch's of other seeds.",
    "paired, worst class": "The same, of the class in which it is largest.",
    "worst pair / two seeds": "How far the two images of one seed are apart at most, over the"
    " distance of two seeds.",
}


@dataclass(frozen=True)
class Asked:
    """One gate, and what it found in every artifact; `bars` are drawn one a result."""

    gate: str
    meaning: str
    results: Sequence[GateResult]
    bars: Sequence[Markup]


@dataclass(frozen=True)
class Parity:
    """What a bundle's parity.json says.

    Attributes:
        asked: the gates. failed: how many results are over their limit.
        extractor: what saw the images of the FID gates.
        kept: the layers left in float32, by precision.
    """

    asked: Sequence[Asked]
    failed: int
    extractor: str
    kept: Mapping[str, Sequence[str]]


def read_parity(path: Path, trained: TrainedGenerator) -> Parity:
    """Of a bundle that was exported from a run.

    Raises:
        BundleError: it cannot be read, was exported without the gates, or from another run.
    """
    with Bundle(path) as opened:
        source = opened.manifest.source
        same = source.config.get("model") == trained.config.as_dict()["model"]
        if not same or source.dataset_sha256 != trained.dataset_sha256:
            raise BundleError(
                f"{path}: was exported from another run than {trained.path.parent}: its model or"
                " dataset differs; name the bundle of this run"
            )
        if "parity.json" not in opened.manifest.files:
            raise BundleError(f"{path}: no parity.json in it: it was exported with --no-verify")
        record: dict[str, Any] = json.loads(opened.read("parity.json"))
    results = [GateResult.model_validate(gate) for gate in record["gates"]]
    names = [gate for gate in MEANINGS if any(result.gate == gate for result in results)]
    asked = []
    for name in dict.fromkeys([*names, *(result.gate for result in results)]):
        own = [result for result in results if result.gate == name]
        asked.append(Asked(name, MEANINGS.get(name, ""), own, [Markup(gate_bar(r)) for r in own]))
    return Parity(
        asked,
        sum(not result.passed for result in results),
        record["extractor"],
        {
            precision: [*found["layers"], *found.get("for_gates", ())]
            for precision, found in record["kept_in_fp32"].items()
        },
    )


def gate_bar(result: GateResult) -> str:
    """A value with its interval, as SVG: the limit in the middle, what passes shaded.

    What lies farther off than twice the limit is drawn at the edge.
    """
    sign, _, number = result.limit.partition(" ")
    if sign not in ("<=", ">=") or not float(number):
        return ""
    limit = float(number)

    def place(value: float) -> float:
        return min(max(value / limit / 2 * BAR_WIDTH, BAR_MARGIN), BAR_WIDTH - BAR_MARGIN)

    middle = BAR_WIDTH / 2
    allowed = (
        f'<rect class="allowed" x="{0 if sign == "<=" else middle}" width="{middle}"'
        f' height="{BAR_HEIGHT}" rx="3"/>'
    )
    label = f"{result.value:.3g}, limit {result.limit}"
    return bar(result.value, result.low, result.high, place, label=label, behind=allowed)
