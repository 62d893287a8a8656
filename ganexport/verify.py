"""Checks a bundle again: its bytes, its golden images on this host and, if given, its source."""

from pathlib import Path

from ganexport.export import open_prover
from ganexport.parity import Progress
from ganinfer.bundle import Bundle, GateResult
from ganinfer.errors import BackendUnavailable, ParityError
from ganinfer.sampler import Sampler
from gantrain.checkpoint import load_generator


def verify_bundle(
    path: Path,
    *,
    run: Path | None = None,
    data: Path | None = None,
    num_images: int = 10_000,
    progress: Progress | None = None,
) -> list[GateResult]:
    """Check a bundle.

    Args:
        path: the bundle.
        run: the run it was exported from; then all gates of the export are run on the shipped
            files, against the run's newest checkpoint.
        data: the run's prepared dataset; by default where the run found it.
        num_images: of each set of the distributional gates.
        progress: called with (what is being done, images done, images in all).

    Returns:
        One result a gate; an engine that cannot run here passes, with the reason in its detail.

    Raises:
        BundleError: a file is damaged, missing or not declared.
        CheckpointError, DataError, ExportError: the run, its data or num_images cannot be used.
    """
    with Bundle(path) as bundle:
        precisions = [graph.precision for graph in bundle.manifest.graphs]
        graphs = {precision: bundle.read_graph(precision) for precision in precisions}
        source = bundle.manifest.source
        engines = bundle.manifest.engines
    gates = [_golden_gate(path, "onnxruntime", precision) for precision in precisions]
    gates += [
        _golden_gate(path, "tensorrt", p) for p in dict.fromkeys(e.precision for e in engines)
    ]
    if run is not None:
        trained = load_generator(run)
        same = source.checkpoint_sha256 == trained.sha256
        gates.append(
            GateResult(
                artifact="manifest",
                gate="newest checkpoint",
                value=float(not same),
                limit="== 0",
                passed=same,
                detail=f"bundle {source.checkpoint_sha256[:12]}, newest {trained.sha256[:12]}",
            )
        )
        gates += open_prover(trained, data, num_images, progress).check_graphs(graphs)
    return gates


def _golden_gate(path: Path, backend: str, precision: str) -> GateResult:
    artifact = f"{backend} {precision}"
    try:
        with Sampler(path, backend=backend, precision=precision, allow_unverified=True):
            return _golden_result(artifact, passed=True, detail="")
    except BackendUnavailable as error:
        # A host without a GPU says nothing about an engine. An ONNX file runs anywhere.
        pending = backend == "tensorrt"
        return _golden_result(artifact, passed=pending, detail=f"not run here: {error}")
    except ParityError as error:
        return _golden_result(artifact, passed=False, detail=str(error))


def _golden_result(artifact: str, *, passed: bool, detail: str) -> GateResult:
    return GateResult(
        artifact=artifact,
        gate="golden images",
        value=float(not passed),
        limit="== 0",
        passed=passed,
        detail=detail,
    )
