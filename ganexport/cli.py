"""gan export, gan verify, gan demo; and the `gan` command that gathers those of all floors."""

import errno
import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

import ganinfer.cli.bench
import ganinfer.cli.bundle
import ganinfer.cli.film
import ganinfer.cli.sample
import gantrain.cli
import gantrain.evaluate_cli
from ganinfer.cli.console import console, progress_bars
from ganinfer.cli.options import BundlePath, PublicKeyPath
from ganinfer.cli.tables import show_gates
from ganinfer.errors import EXTRAS, ExportError, GanError, missing_extra
from ganinfer.files import check_place, write_atomic

if TYPE_CHECKING:
    from ganexport.proof.layers import Comparison
    from ganexport.subjects.subject import Subject

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Train GANs, export them with proof of parity, sample them fast.",
)


@app.callback()
def options(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show what is going on.")
    ] = False,
) -> None:
    """Options of every command."""
    logging.basicConfig(
        level=logging.INFO if verbose else logging.ERROR,
        format="%(name)s: %(message)s",
    )
    logging.captureWarnings(True)


app.command()(gantrain.cli.prepare)
app.command()(gantrain.cli.train)
app.command()(gantrain.evaluate_cli.evaluate)
app.command()(gantrain.evaluate_cli.report)
app.command()(gantrain.evaluate_cli.statistics)
app.command()(gantrain.evaluate_cli.fetch)


@app.command()
def export(
    output: Annotated[Path, typer.Option("-o", "--output", help="The bundle, name.gan.")],
    run: Annotated[
        Path | None, typer.Argument(help="Folder of a run, or a checkpoint.", show_default=False)
    ] = None,
    module: Annotated[
        str | None, typer.Option(help="Instead of a run: package.module:function that makes a G.")
    ] = None,
    importer: Annotated[
        str | None,
        typer.Option("--from", help="Instead of a run: another project's, by its importer."),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Of --module or --from: .safetensors, .pt, .bin.")
    ] = None,
    weights_key: Annotated[
        str | None, typer.Option(help="Of the state dict in that file, such as g_ema.")
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--set", help="Of --module (z_dim=128, classes=10, ...) or of --from."),
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(
            help="fp32, fp16, bf16, int8, fp8; may be repeated. The first two by default."
        ),
    ] = None,
    auto_precision: Annotated[
        str | None,
        typer.Option(help="55dB: keep the most sensitive layers in fp32 until that is met."),
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option(help="A rewrite to leave out: upsampling, norms.")
    ] = None,
    standing_statistics: Annotated[
        str | None,
        typer.Option(help="0.3,0.5,1: batch-norm statistics for these truncations, in the graph."),
    ] = None,
    class_weights: Annotated[
        bool, typer.Option("--class-weights", help="Take a weight for each class: mixtures.")
    ] = False,
    with_discriminator: Annotated[
        bool, typer.Option("--with-discriminator", help="Also the run's D: rejection sampling.")
    ] = False,
    held_out: Annotated[
        Path | None, typer.Option(help="Prepared dataset that D has not seen, to calibrate it on.")
    ] = None,
    trt: Annotated[bool, typer.Option("--trt", help="Also build TensorRT engines.")] = False,
    trt_target: Annotated[
        list[str] | None,
        typer.Option(help="portable, sm89, ..., current, same-cc, ampere+; repeatable."),
    ] = None,
    trt_product: Annotated[str, typer.Option(help="auto, tensorrt or tensorrt_rtx.")] = "auto",
    profile: Annotated[
        list[str] | None,
        typer.Option(help="Batches of an engine, as in 1:64:256; may be repeated."),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Prepared dataset, if it was moved.")] = None,
    num: Annotated[int, typer.Option(help="Images of each set of the FID gates.")] = 10_000,
    verify: Annotated[bool, typer.Option(help="Prove parity before writing.")] = True,
    single_file: Annotated[
        bool, typer.Option("--single-file", help="One file, no folder.")
    ] = False,
    sign_key: Annotated[
        Path | None, typer.Option(help="Sign it: PEM file of an Ed25519 private key.")
    ] = None,
) -> None:
    """Turn a generator into a bundle that is proven to be the same generator.

    It is a run's averaged one, or that of --module or --from.
    """
    from ganexport.engines.tensorrt import DEFAULT_PROFILES
    from ganexport.export import export_subject
    from ganexport.subjects.outside import of_factory, of_import
    from ganexport.subjects.subject import of_run
    from gantrain.game.config import apply_override
    from gantrain.runs.checkpoint import load_generator

    if sum(origin is not None for origin in (run, module, importer)) != 1:
        raise ExportError("expected one of RUN, --module package.module:function, --from NAME")
    if run is not None and (weights or weights_key or options):
        raise ExportError("--weights, --weights-key, --set: they go with --module or --from")
    if held_out is not None and not with_discriminator:
        raise ExportError("--held-out: it goes with --with-discriminator")
    given: dict[str, object] = {}
    for option in options or []:
        apply_override(given, option)

    def subject() -> "Subject":
        if module is not None:
            return of_factory(module, weights, weights_key, given)
        if importer is not None:
            return of_import(importer, weights, weights_key, given)
        assert run is not None
        return of_run(load_generator(run))

    profiles = [_batches(text) for text in profile] if profile else DEFAULT_PROFILES
    with progress_bars() as report:
        exported = export_subject(
            subject(),
            output,
            precisions=precision or ("fp32", "fp16"),
            tensorrt=trt or bool(trt_target),
            targets=trt_target or (),
            product=trt_product,
            profiles=profiles,
            min_psnr_db=_decibels(auto_precision),
            without=without or (),
            standing=_truncations(standing_statistics),
            class_weights=class_weights,
            with_discriminator=with_discriminator,
            held_out=held_out,
            data=data,
            num_images=num,
            verify=verify,
            single_file=single_file,
            sign_key=sign_key,
            progress=report,
        )
    if exported.gates:
        show_gates(exported.gates)
    else:
        console.print(
            "unverified: parity was not checked; Sampler refuses it by default", style="yellow"
        )
    for name, found in exported.kept.items():
        layers = ", ".join(f"{layer} ({db:.1f} dB)" for layer, db in found.layers.items())
        console.print(
            f"{name}: {found.psnr_db:.1f} dB; kept in fp32: {layers or 'none'}", soft_wrap=True
        )
    for engine in exported.engines:
        entry = engine.entry
        console.print(
            f"engine {entry.precision} for {entry.target}: {entry.product} {entry.version},"
            f" {len(engine.plan):,} bytes, {entry.status},"
            + (" found again" if engine.seconds is None else f" built in {engine.seconds:.1f} s"),
            soft_wrap=True,
        )
    console.print(f"-> {exported.path}")


def _truncations(text: str | None) -> list[float]:
    """From "0.3,0.5,1"."""
    try:
        return [] if text is None else [float(part) for part in text.split(",")]
    except ValueError:
        raise ExportError(
            f"--standing-statistics {text}: expected truncations, as in 0.3,0.5,1"
        ) from None


def _batches(text: str) -> tuple[int, int, int]:
    """From "1:64:256"."""
    try:
        smallest, likeliest, largest = (int(part) for part in text.split(":"))
    except ValueError:
        raise ExportError(f"--profile {text}: expected three batch sizes, as in 1:64:256") from None
    return smallest, likeliest, largest


def _decibels(text: str | None) -> float | None:
    """From "55dB" or "55"."""
    if text is None:
        return None
    try:
        return float(text.lower().removesuffix("db"))
    except ValueError:
        raise ExportError(f"--auto-precision {text}: expected decibels, as in 55dB") from None


@app.command()
def extract(
    bundle: Annotated[Path, typer.Argument(help="The bundle.", show_default=False)],
    output: Annotated[Path, typer.Option("-o", "--output", help="The file, name.onnx.")],
    precision: Annotated[
        str, typer.Option(help="fp32, or another that the bundle holds.")
    ] = "fp32",
    pixels: Annotated[
        str, typer.Option(help="uint8 (N, H, W, C), or float (N, C, H, W) before rounding.")
    ] = "uint8",
    latents: Annotated[str, typer.Option(help="z, or mapped: StyleGAN2's w.")] = "z",
) -> None:
    """Take a proven graph out of a bundle, for a program that feeds ONNX itself."""
    from ganexport.graph.extract import extract

    extract(bundle, output, precision=precision, pixels=pixels, latents=latents)
    console.print(f"-> {output}")


@app.command()
def verify(
    bundle: BundlePath,
    backend: Annotated[
        str | None, typer.Option(help="The one to check; all that are in the bundle by default.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:<n>.")] = "auto",
    run: Annotated[Path | None, typer.Option(help="Compare with this run, by all gates.")] = None,
    data: Annotated[Path | None, typer.Option(help="Prepared dataset, if it was moved.")] = None,
    num: Annotated[int, typer.Option(help="Images of each set of the FID gates.")] = 10_000,
    public_key: PublicKeyPath = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the verdict, for machines.")
    ] = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="Also compare fp32 and a variant layer by layer.")
    ] = False,
    precision: Annotated[
        str | None, typer.Option(help="The variant of --layers; the first by default.")
    ] = None,
) -> None:
    """Check a bundle on this host, without torch; with --run, by all gates of the export too.

    Its bytes, its golden images, and the distribution of its images against what torch gave.
    --layers finds where a variant leaves fp32 or, with --run, the newest checkpoint.
    """
    if precision is not None and not layers:
        raise ExportError("--precision: it goes with --layers")
    if json_file is not None:
        check_place(json_file, ".json")
    from ganinfer.verify import verify_host

    with progress_bars() as report:
        gates = verify_host(
            bundle, backend=backend, device=device, public_key=public_key, progress=report
        )
        if run is not None:
            from ganexport.proof.verify import verify_against_run

            gates += verify_against_run(bundle, run, data=data, num_images=num, progress=report)
    show_gates(gates)
    passed = all(gate.passed for gate in gates)
    if json_file is not None:
        verdict = {"passed": passed, "gates": [gate.model_dump() for gate in gates]}
        write_atomic(json_file, (json.dumps(verdict, indent=1) + "\n").encode())
    if layers:
        from ganexport.proof.layers import compare_bundle

        _show_layers(compare_bundle(bundle, precision, run))
    if not passed:
        console.print(f"{bundle}: FAILED", style="red")
        raise typer.Exit(1)
    console.print(f"{bundle}: good")


def _show_layers(found: "Comparison") -> None:
    """The worst tensor of every layer, and where the trouble begins."""
    table = Table(title="layers", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for column in ("layer", "worst tensor"):
        table.add_column(column, no_wrap=True)
    for column in ("max error", "PSNR, dB"):
        table.add_column(column, no_wrap=True, justify="right")
    for worst in found.layers:
        error, psnr = f"{worst.max_difference:.3g}", f"{worst.psnr_db:.1f}"
        table.add_row(worst.layer, worst.tensor, error, psnr)
    console.print(table)
    first, jump = found.first, found.largest_jump
    console.print(
        f"the error grows most in {jump.layer} ({jump.op}, {jump.tensor}):"
        f" by {jump.jump:.2%} of its range",
        soft_wrap=True,
    )
    below = f"below {found.departs_db:g} dB over {found.num_images} golden images"
    if first is None:
        console.print(f"no layer departs: none lies {below}", soft_wrap=True)
    else:
        where = f"{first.layer} ({first.op}, {first.tensor})"
        console.print(f"first to depart, {below}: {where}", style="yellow", soft_wrap=True)


app.command()(ganinfer.cli.sample.sample)
app.command()(ganinfer.cli.film.interpolate)
app.command()(ganinfer.cli.film.truncations)
app.command()(ganinfer.cli.bench.bench)
app.command()(ganinfer.cli.bundle.keygen)
app.command()(ganinfer.cli.bundle.sign)
app.command()(ganinfer.cli.bundle.push)


@app.command()
def inspect(
    bundle: BundlePath,
    engines: Annotated[bool, typer.Option("--engines", help="And what is in its engines.")] = False,
    html: Annotated[
        Path | None, typer.Option(help="Also draw the graph: a page that needs nothing else.")
    ] = None,
) -> None:
    """Check a bundle's files and show what is in it; nothing is run."""
    ganinfer.cli.bundle.inspect(bundle, engines=engines)
    if html is not None:
        from ganexport.graph.drawing import draw_bundle

        draw_bundle(bundle, html)
        console.print(f"{html}: open it in a browser", soft_wrap=True)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where everything goes.")] = Path("gan-demo"),
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Of the recipe, as in gan train.")
    ] = None,
) -> None:
    """Walk the whole road on scikit-learn's handwritten digits, in a few minutes on a CPU."""
    from ganexport.demo import run_demo

    run_demo(folder, overrides or [])


def main() -> None:
    """The `gan` command. A user's mistake ends in a message and exit code 1 or 2, no traceback."""
    try:
        app()
    except GanError as error:
        _fail(str(error))
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name not in EXTRAS:
            raise
        _fail(str(missing_extra(name)))
    except OSError as error:
        if error.errno is None:
            raise
        where = f"{error.filename}: " if error.filename else ""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "free some space, or choose" if full else "choose"
        _fail(f"{where}{error.strerror}; {remedy} another place")


def _fail(message: str) -> None:
    console.file = sys.stderr
    console.print("error: ", style="red", end="")
    console.print(message, soft_wrap=True)
    sys.exit(1)
