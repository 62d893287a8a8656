"""gan inspect, gan pack, gan unpack, gan keygen, gan sign, gan push."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ganinfer.cli.console import console
from ganinfer.cli.options import BundlePath, LocalBundlePath
from ganinfer.cli.tables import engine_status, engine_table, show_gates


def inspect(
    bundle: BundlePath,
    engines: Annotated[
        bool, typer.Option("--engines", help="Also show what is in its engines.")
    ] = False,
) -> None:
    """Check a bundle's files and show what is in it; nothing is run."""
    from ganinfer.bundle.archive import Bundle
    from ganinfer.bundle.engine_report import read_report

    with Bundle(bundle) as opened:
        manifest, signed = opened.manifest, opened.signature is not None
        reports = [read_report(opened, entry) for entry in manifest.engines] if engines else []
    model = manifest.model
    table = Table(title=str(bundle), title_justify="left", show_header=False)
    table.add_row("family", model.family)
    table.add_row("images", f"{model.size} (height, width, channels), uint8")
    table.add_row("classes", ", ".join(model.classes) or "none (unconditional)")
    table.add_row("latent", f"{model.z_dim}, {model.z_distribution}")
    table.add_row("truncation", ", ".join(model.truncation_modes) or "none")
    for graph in manifest.graphs:
        table.add_row(f"onnx {graph.precision}", f"{manifest.files[graph.path].size:,} bytes")
    for engine in manifest.engines:
        size = manifest.files[engine.path].size
        table.add_row(
            f"engine {engine.precision}",
            f"{engine.product} {engine.version} for {engine.target} on {engine.platform},"
            f" batches {', '.join(f'{low}-{high}' for low, _, high in engine.profiles)},"
            f" {size:,} bytes, {engine_status(engine)}",
        )
    source = manifest.source
    table.add_row("trained on", f"{source.images_seen:,} images, EMA weights" if source.ema else "")
    table.add_row("checkpoint", source.checkpoint_sha256)
    table.add_row("license", manifest.license or "not said")
    table.add_row("made with", ", ".join(f"{k} {v}" for k, v in manifest.tools.items()))
    table.add_row("verified", "yes" if manifest.verified else "NO: exported with --no-verify")
    table.add_row("signed", "yes; by whom says gan verify --public-key" if signed else "no")
    console.print(table)
    if manifest.parity:
        show_gates(manifest.parity)
    for entry, report in zip(manifest.engines, reports, strict=False):
        console.print(engine_table(entry, report))


_Packed = Annotated[Path, typer.Option("-o", "--output", help="The bundle to write, as in x.gan.")]


def pack(bundle: BundlePath, output: _Packed) -> None:
    """Write a bundle as one file, which travels without a loss; its sha256 stays."""
    _repack(bundle, output, single_file=True)


def unpack(bundle: BundlePath, output: _Packed) -> None:
    """Write a bundle as a folder, for a look at its files; its sha256 stays."""
    _repack(bundle, output, single_file=False)


def _repack(bundle: Path, output: Path, *, single_file: bool) -> None:
    from ganinfer.bundle.archive import repack

    repack(bundle, output, single_file=single_file)
    form = "one file" if single_file else "a folder"
    console.print(f"{output}: {form}", soft_wrap=True)


def keygen(
    key: Annotated[
        Path, typer.Argument(help="File of the private key, as in signing.pem.", show_default=False)
    ],
) -> None:
    """Make a pair of keys: signing.pem, to be kept secret, and signing.pub.pem, for everybody."""
    from ganinfer.bundle.signature import make_keys

    console.print(f"{key}: keep it secret\n{make_keys(key)}: what others check bundles with")


def sign(
    bundle: LocalBundlePath,
    key: Annotated[Path, typer.Option(help="Private key to sign with, a PEM file.")],
) -> None:
    """Sign a bundle where it lies: Sampler(public_key=...) then knows whose it is."""
    from ganinfer.bundle.archive import sign_bundle
    from ganinfer.bundle.signature import open_private_key

    sign_bundle(bundle, open_private_key(key))
    console.print(f"{bundle}: signed")


def push(
    bundle: LocalBundlePath,
    repository: Annotated[
        str, typer.Argument(help="Repository on the Hub, owner/name.", show_default=False)
    ],
    private: Annotated[bool, typer.Option("--private", help="Let nobody else see it.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch; the main one by default.")] = None,
) -> None:
    """Upload a bundle to the Hugging Face Hub, with a model card and its preview."""
    from ganinfer.bundle import hub

    pushed = hub.push(bundle, repository, private=private, revision=revision)
    if pushed.card_kept:
        console.print(f"{hub.CARD}: somebody has edited it; left as it is", style="yellow")
    console.print(f"-> {pushed.url}", soft_wrap=True)
