"""Where does a variant leave its original? Every tensor of two graphs compared, layer by layer.

Tensors are matched by name, which conversions keep: what they add (casts, quantised copies) has no
partner and is passed over. Both graphs run in onnxruntime with all these tensors as outputs, so
that nothing is fused across one, and each is rounded to its type where the shipped session may be
more exact. Channels that the variant has in another scale are brought back to theirs.
"""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ganexport.graph.equalize import divided_by, multiplied
from ganexport.graph.large import require_one_file
from ganexport.graph.owners import layers_of
from ganexport.graph.precision import Feed
from ganexport.graph.subpixel import in_precision
from ganexport.proof.numeric import runnable
from ganexport.proof.rounding import LEAST_PSNR_DB
from ganexport.subjects.rewrites import rewrite
from ganexport.subjects.standing import as_shipped
from ganexport.subjects.subject import of_run
from ganinfer.bundle.archive import Bundle
from ganinfer.bundle.golden import read_golden
from ganinfer.bundle.manifest import Precision
from ganinfer.errors import ExportError, missing_extra
from gantrain.runs.checkpoint import load_generator

# A tensor departs where its PSNR falls below this; the gates' own limits, where they have one.
DEPARTS_DB = {"fp32": 100.0, **LEAST_PSNR_DB}
_BATCH = 2  # all tensors of a batch are in memory at once


@dataclass(frozen=True)
class Compared:
    """One tensor in both graphs.

    Attributes:
        tensor: its name. layer: the generator's layer that it belongs to. op: what makes it.
        max_difference: absolute. psnr_db: peak: the range of the reference's tensor.
        jump: root mean square error, as a share of that range, beyond that of its worst input.
    """

    tensor: str
    layer: str
    op: str
    max_difference: float
    psnr_db: float
    jump: float


@dataclass(frozen=True)
class Comparison:
    """All tensors in the order of the graph; see the properties for what they say."""

    tensors: Sequence[Compared]
    departs_db: float
    num_images: int

    @property
    def layers(self) -> list[Compared]:
        """The worst tensor of every layer, in the order of the graph."""
        worst: dict[str, Compared] = {}
        for found in self.tensors:
            if found.layer not in worst or found.psnr_db < worst[found.layer].psnr_db:
                worst[found.layer] = found
        return list(worst.values())

    @property
    def first(self) -> Compared | None:
        """The first tensor whose PSNR lies below `departs_db`."""
        return next((found for found in self.tensors if found.psnr_db < self.departs_db), None)

    @property
    def largest_jump(self) -> Compared:
        """Where the error grows most."""
        return max(self.tensors, key=lambda found: found.jump)


def compare_bundle(path: Path, precision: str | None = None, run: Path | None = None) -> Comparison:
    """Compare a bundle's variant with its fp32 graph, on the golden latents.

    Args:
        path: the bundle.
        precision: of the variant; the first that is not fp32 by default, fp32 if there is a run.
        run: folder of the run; then the reference is traced anew from its newest checkpoint.

    Raises:
        ExportError: there is no such variant, or the graphs have no tensor in common.
        BundleError, CheckpointError: the bundle or the run cannot be used.
        MissingExtra: polygraphy is not installed.
    """
    with Bundle(path) as bundle:
        manifest = bundle.manifest
        held = [graph.precision for graph in manifest.graphs]
        others = [name for name in held if name != "fp32"] if run is None else held
        chosen = next((name for name in others if precision in (None, name)), None)
        if chosen is None:
            raise ExportError(
                f"{path}: no {precision or 'other'} variant to compare with fp32; it holds"
                f" {', '.join(held)}; export it with --precision, or compare with --run"
            )
        reference, variant = bundle.read_graph("fp32"), bundle.read_graph(chosen)
        inputs, _ = read_golden(bundle)
    if run is not None:
        subject = as_shipped(of_run(load_generator(run)), manifest.model)
        reference = in_precision(subject.to_onnx(rewrite(subject.twin())), "fp32")
    return compare_graphs(reference, variant, chosen, inputs.feed())


def compare_graphs(
    reference: bytes, variant: bytes, precision: Precision, feed: Feed
) -> Comparison:
    """Compare all tensors that two graphs share.

    Args:
        reference: float32 ONNX file of a `SamplingGraph`.
        variant: the other.
        precision: of the variant.
        feed: inputs by name, (N, ...) each.

    Raises:
        ExportError: they share no tensor. MissingExtra: polygraphy is not installed.
    """
    graph = onnx.load_from_string(reference).graph
    graphs = reference, runnable(variant, precision)[0]
    for one in graphs:
        require_one_file(one, "tensors are compared in one file each: leave --layers out")
    names = _shared(graphs)
    if not names:
        raise ExportError("the two graphs share no tensor's name; export the bundle again")
    errors = _errors(graphs, names, feed)
    tensors = []
    for node, layer in zip(graph.node, layers_of(graph), strict=True):
        inputs = max((errors[name].share for name in node.input if name in errors), default=0.0)
        for name in node.output:
            if (error := errors.get(name)) is not None:
                jump = error.share - inputs if inputs < math.inf else 0.0
                tensors.append(
                    Compared(name, layer, node.op_type, error.largest, error.psnr_db, jump)
                )
    return Comparison(tensors, DEPARTS_DB[precision], len(feed["z"]))


@dataclass
class _Error:
    """What is kept of a tensor: sums over the batches."""

    largest: float = 0.0
    squares: float = 0.0
    count: int = 0
    ends: list[float] = field(default_factory=list)

    def add(self, expected: NDArray[Any], found: NDArray[Any]) -> None:
        """Take in a batch; another shape counts as an infinite error."""
        wide = expected.astype(np.float64)
        same = expected.shape == found.shape
        difference = np.abs(wide - found) if same else np.full(1, np.inf)
        difference = np.where(np.isnan(difference), np.inf, difference)
        self.largest = max(self.largest, float(difference.max()))
        self.squares += float((difference**2).sum())
        self.count += wide.size
        ends = [*self.ends, float(wide.min()), float(wide.max())]
        self.ends = [min(ends), max(ends)]

    @property
    def share(self) -> float:
        """Root mean square error as a share of the range."""
        if not self.squares:
            return 0.0
        span = self.ends[1] - self.ends[0]
        return math.sqrt(self.squares / self.count) / span if span else math.inf

    @property
    def psnr_db(self) -> float:
        """With the range as the peak."""
        return math.inf if not self.share else -20 * math.log10(self.share)


def _shared(graphs: Sequence[bytes]) -> list[str]:
    """Names of the tensors that all graphs compute."""
    nodes = [onnx.load_from_string(graph).graph.node for graph in graphs]
    named = [dict.fromkeys(name for node in part for name in node.output if name) for part in nodes]
    return [name for name in named[0] if all(name in other for other in named)]


def _errors(graphs: Sequence[bytes], names: Sequence[str], feed: Feed) -> dict[str, _Error]:
    """Errors of the float and pixel tensors among those named."""
    try:
        from polygraphy.backend.onnx import BytesFromOnnx, ModifyOutputs, OnnxFromBytes
        from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx
        from polygraphy.logger import G_LOGGER
    except ModuleNotFoundError as error:
        raise missing_extra("polygraphy", error) from None
    errors: dict[str, _Error] = {}
    divided = divided_by(onnx.load_from_string(graphs[1]))
    with ExitStack() as stack:
        stack.enter_context(G_LOGGER.verbosity(G_LOGGER.CRITICAL))  # it writes to stdout
        runners = []
        for graph in graphs:
            marked = BytesFromOnnx(ModifyOutputs(OnnxFromBytes(graph), outputs=names))
            session = SessionFromOnnx(marked, providers=["cpu"])
            runners.append(stack.enter_context(OnnxrtRunner(session)))
        for start in range(0, len(feed["z"]), _BATCH):
            rows = {name: array[start : start + _BATCH] for name, array in feed.items()}
            expected, found = (runner.infer(rows) for runner in runners)
            for name in names:
                if expected[name].dtype.kind in "fu":
                    restored = multiplied(found[name], divided.get(name))
                    errors.setdefault(name, _Error()).add(expected[name], restored)
    return errors
