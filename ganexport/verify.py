"""Checks a bundle against the run it was exported from: all gates of the export, once more."""

from pathlib import Path

from ganexport.export import open_prover
from ganexport.parity import Progress
from ganexport.subject import of_run, with_class_weights
from ganinfer.bundle import Bundle, GateResult
from gantrain.checkpoint import load_generator


def verify_against_run(
    path: Path,
    run: Path,
    *,
    data: Path | None = None,
    num_images: int = 10_000,
    progress: Progress | None = None,
) -> list[GateResult]:
    """Run all gates of the export on the shipped files, against the run's newest checkpoint.

    Args:
        path: the bundle.
        run: folder of the run.
        data: the run's prepared dataset; by default where the run found it.
        num_images: of each set of the distributional gates.
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
        shipped = bundle.manifest.source.checkpoint_sha256
        weights = bundle.manifest.model.class_input == "weights"
    trained = load_generator(run)
    newest = GateResult(
        artifact="manifest",
        gate="newest checkpoint",
        value=float(shipped != trained.sha256),
        limit="== 0",
        passed=shipped == trained.sha256,
        detail=f"bundle {shipped[:12]}, newest {trained.sha256[:12]}",
    )
    subject = with_class_weights(of_run(trained)) if weights else of_run(trained)
    prover = open_prover(subject, data, num_images, progress)
    return [newest, *prover.check_graphs(graphs)]
