"""gan export, gan extract."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ganexport.extraction.options import ExtractOptions
from ganexport.options import ExportOptions
from ganinfer.cli.console import console, progress_bars
from ganinfer.cli.options import BundlePath, expanded
from ganinfer.cli.tables import engine_memory, engine_status, show_gates
from ganinfer.errors import Ending, RequestError

if TYPE_CHECKING:
    from ganexport.proof.looks import Looks
    from ganexport.subjects.subject import Subject


@expanded
def export(
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="The bundle, name.gan.")],
    run: Annotated[
        Path | None, typer.Argument(help="Folder of a run, or a checkpoint.", show_default=False)
    ] = None,
    module: Annotated[
        str | None, typer.Option(help="Instead of a run: package.module:function that makes a G.")
    ] = None,
    importer: Annotated[
        str | None,
        typer.Option(
            "--from", help="Instead of a run: weights of another project, by its importer."
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="Weights of --module or --from: .safetensors, .pt, .pkl, ..."),
    ] = None,
    weights_key: Annotated[
        str | None,
        typer.Option(help="Path of the state dict in that file, g_ema or a.b, if several fit."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="What --module is (z_dim=128, classes=10, ...), or options of --from."
        ),
    ] = None,
    arguments: Annotated[
        list[str] | None,
        typer.Option("--arg", help="Argument of --module's function: name=value, as in ngf=64."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail if something asked for is left out.")
    ] = False,
    options: ExportOptions,
) -> None:
    """Turn a generator into a bundle that is proven to be the same generator.

    It is a run's averaged one, or that of --module or --from.
    """
    from ganexport.pipeline import export_subject
    from ganexport.proof.looks import look_at
    from ganexport.proof.overflow import named_layers
    from ganexport.subjects.outside import of_factory, of_import
    from ganexport.subjects.subject import of_run
    from gantrain.game.config import apply_override
    from gantrain.runs.checkpoint import load_generator

    if sum(origin is not None for origin in (run, module, importer)) != 1:
        raise RequestError("expected one of RUN, --module package.module:function, --from NAME")
    if run is not None and (weights or weights_key or overrides):
        raise RequestError("--weights, --weights-key, --set: they go with --module or --from")
    if arguments and module is None:
        raise RequestError("--arg: it goes with --module")
    given: dict[str, object] = {}
    for override in overrides or []:
        apply_override(given, override)
    called_with: dict[str, object] = {}
    for argument in arguments or []:
        apply_override(called_with, argument)

    def subject() -> "Subject":
        if module is not None:
            return of_factory(module, weights, weights_key, given, called_with)
        if importer is not None:
            return of_import(importer, weights, weights_key, given)
        assert run is not None
        return of_run(load_generator(run))

    exporting = subject()
    for note in exporting.notes:
        console.print(note, style="yellow", soft_wrap=True)
    doubtful = _show_looks(look_at(exporting, options.data), output)
    with progress_bars() as report:
        exported = export_subject(exporting, output, options, progress=report)
    if exported.gates:  # with --no-verify there may be the discriminator's
        show_gates(exported.gates)
    if not options.verify:
        console.print(
            "unverified: parity was not checked; Sampler refuses it by default", style="yellow"
        )
    for name, found in exported.kept.items():
        if found.named:
            console.print(f"{name}: kept in fp32 as asked: {', '.join(found.named)}")
        if found.overflowing:
            beyond = named_layers(found.overflowing)
            console.print(f"{name}: kept in fp32, which alone holds it: {beyond}", soft_wrap=True)
        for layer, why in found.for_gates.items():
            console.print(f"{name}: kept in fp32: {layer}; rounded, {why}", soft_wrap=True)
        if found.psnr_db is not None:
            layers = ", ".join(f"{layer} ({db:.1f} dB)" for layer, db in found.layers.items())
            console.print(
                f"{name}: {found.psnr_db:.1f} dB; kept in fp32: {layers or 'none'}", soft_wrap=True
            )
    for engine in exported.engines:
        entry = engine.entry
        console.print(
            f"engine {entry.precision} for {entry.target}: {entry.product} {entry.version},"
            f" {len(engine.plan):,} bytes, {engine_status(entry)},"
            + (" found again" if engine.seconds is None else f" built in {engine.seconds:.1f} s")
            + f"; on the GPU {engine_memory(engine.report)}",
            soft_wrap=True,
        )
    for one in exported.left_out:
        console.print(f"left out: {one.artifact}: {one.why}", style="yellow", soft_wrap=True)
    console.print(f"-> {exported.path}")
    if doubtful is not None:  # what was told of it stands above all gates
        console.print(f"doubtful, look at it: {doubtful}", style="yellow", soft_wrap=True)
    if strict and exported.left_out:
        failed = any(one.gates for one in exported.left_out)
        raise typer.Exit(Ending.PARITY if failed else Ending.UNAVAILABLE)


def _show_looks(looks: "Looks", output: Path) -> Path | None:
    """What is doubtful in the first images, and a picture of them beside the bundle, if it is."""
    from ganinfer.drawing.images import save_png

    for warning in looks.warnings:
        console.print(warning, style="yellow", soft_wrap=True)
    if looks.picture is None:
        return None
    path = output.with_name(f"{output.stem}-looks.png")
    save_png(path, looks.picture)
    console.print(f"{path}: {looks.rows}", style="yellow", soft_wrap=True)
    return path


@expanded
def extract(
    *,
    bundle: BundlePath,
    output: Annotated[Path, typer.Option("-o", "--output", help="The file, name.onnx.")],
    options: ExtractOptions,
) -> None:
    """Take a proven graph out of a bundle, for a program that feeds a runtime itself."""
    from ganexport.extraction.extract import extract

    extract(bundle, output, options)
    console.print(f"-> {output}")
