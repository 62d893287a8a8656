"""gan export, gan extract."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ganinfer.cli.console import console, progress_bars
from ganinfer.cli.tables import show_gates
from ganinfer.errors import ExportError

if TYPE_CHECKING:
    from ganexport.subjects.subject import Subject


def export(
    output: Annotated[Path, typer.Option("-o", "--output", help="The bundle, name.gan.")],
    run: Annotated[
        Path | None, typer.Argument(help="Folder of a run, or a checkpoint.", show_default=False)
    ] = None,
    module: Annotated[
        str | None, typer.Option(help="Instead of a run: package.module:function that makes a G.")
    ] = None,
    importer: Annotated[
        str | None, typer.Option("--from", help="Instead of a run: another project's generator.")
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
    from ganexport.pipeline import export_subject
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
            sys.path.insert(0, str(Path.cwd()))  # it may lie beside the user, as for python -m
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
