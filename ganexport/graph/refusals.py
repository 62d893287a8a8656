"""What torch's exporter says of a network that it cannot take, in two lines; the rest in a file."""

import re
import tempfile
import traceback
from pathlib import Path

import onnx

# The last line of the user's own that an exporter's report names: file, number, code.
_PLACE = re.compile(r'File "([^"]+)", line (\d+), in \w+\n\s*(\S[^\n]*)')
_BRANCH = (
    "data-dependent",
    "Could not guard",
    "GuardOnDataDependent",
    "Dynamic control flow",
    "Data-dependent branching",
)


def explain(error: Exception, name: str, said: str) -> str:
    """Two lines on why a network cannot be exported, and where the exporter's own words are.

    Args:
        error: what the exporter raised.
        name: of the network.
        said: what it printed meanwhile.
    """
    report = "".join(traceback.format_exception(error))
    with tempfile.NamedTemporaryFile(
        "w", prefix="gan-export-", suffix=".log", delete=False, encoding="utf-8"
    ) as log:
        log.write(f"{said}\n{report}")
    return f"{name}: {_reason(error, report)}. The exporter's report: {log.name}"


class FixedBatch(ValueError):
    """A graph for one batch size."""


def check_batch(model: onnx.ModelProto, name: str) -> None:
    """Refuse a graph whose batch is a number.

    Raises:
        FixedBatch: it is; the message says how that comes.
    """
    for value in (*model.graph.input, *model.graph.output):
        batch = value.type.tensor_type.shape.dim[0]
        if batch.HasField("dim_value"):
            raise FixedBatch(
                f"{name}: its graph takes batches of {batch.dim_value} alone: forward makes a"
                " number of the batch size, as by len(z), int(z.size(0)) or a loop over range(n);"
                " write z.shape[0], or -1 in reshape, and work on all images at once"
            )


def _reason(error: Exception, report: str) -> str:
    if any(word in report for word in _BRANCH):
        return (
            f"forward decides by the values of its tensors{_place(report)}; a graph has no such"
            " branch: write it with torch.where, clamp or a mask"
        )
    if "conv2d" in report and re.search(r"(translating node|groups).*sym_size", report, re.DOTALL):
        return (
            "a convolution's groups are the batch, as in StyleGAN2's fused modulation; scale the"
            " activations by the style before the convolution and demodulate them after it"
            " (fused_modconv=False), which is the same function"
        )
    if "only 4D query, key, and value" in report:
        return (
            f"scaled_dot_product_attention{_place(report)} has no heads; give it one, as by"
            " q[:, None], k[:, None], v[:, None], and take [:, 0] of what it gives"
        )
    if "larger than 2GB" in report or "2GiB" in report:
        return "its weights have more than 2 GB, which one ONNX file cannot hold"
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    text = str(cause).strip().splitlines() or [""]
    return f"cannot be exported to ONNX{_place(report)}: {type(cause).__name__}: {text[0][:300]}"


def _place(report: str) -> str:
    """As in ", in nets.py, line 19: `if x.max() > 3:`"; nothing if all lines are a library's."""
    here = Path(__file__).parent.parent
    found = [
        (file, line, code)
        for file, line, code in _PLACE.findall(report)
        if "site-packages" not in file and not Path(file).is_relative_to(here)
    ]
    if not found:
        return ""
    file, line, code = found[-1]
    return f", in {Path(file).name}, line {line}: `{code.strip()[:120]}`"
