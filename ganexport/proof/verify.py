"""Checks a bundle against the run it was exported from: all gates of the export, once more."""

from pathlib import Path

from ganexport.proof.parity import open_prover
from ganexport.subjects.standing import as_shipped
from ganexport.subjects.subject import of_run
from ganinfer.bundle.archive import Bundle
from ganinfer.bundle.manifest import GateResult, gate_result
from ganinfer.progress import Progress
from gantrain.runs.checkpoint import load_generator


def verify_against_run(
    path: Path,
    run: Path,
    *,
    data: Path | None = None,
    num_images: int = 10_000,
    minutes: float = 10.0,
    progress: Progress | None = None,
) -> list[GateResult]:
    """Run all gates of the export on the shipped files, against the run's newest checkpoint.

    Args:
        path: the bundle.
        run: folder of the run.
        data: the run's prepared dataset; by default where the run found it.
        num_images: of each set of the distributional gates, at most.
        minutes: after which no further look at more images is taken.
        progress: called with (what is being done, images done, images in all).

    Returns:
        One result a gate.

    Raises:
        BundleError: a file is damaged, missing or not declared.
        CheckpointError, DataError, ExportError: the run, its data or num_images cannot be used.
    """
    with Bundle(path) as bundle:
        precisions = [graph.precision for graph in bundle.manifest.graphs]
        graphs = {precision: bundle.read_graph(precision) for precision in precisions}
        shipped, model = bundle.manifest.source.checkpoint_sha256, bundle.manifest.model
    trained = load_generator(run)
    newest = gate_result(
        "manifest",
        "newest checkpoint",
        float(shipped != trained.sha256),
        "== 0",
        shipped == trained.sha256,
        f"bundle {shipped[:12]}, newest {trained.sha256[:12]}",
        num_images=None,
    )
    prover = open_prover(as_shipped(of_run(trained), model), data, num_images, minutes, progress)
    return [newest, *(gate for _, gates in prover.check_graphs(graphs) for gate in gates)]
