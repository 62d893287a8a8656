"""gan sample, gan inspect, gan keygen, gan sign, gan push."""

from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from ganinfer.errors import RequestError
from ganinfer.hub import local_path
from ganinfer.mixing import Mixture, parse_mixture

# No markup: names in a stranger's manifest are data.
console = Console(highlight=False, markup=False)

BundlePath = Annotated[
    Path,
    typer.Argument(
        help="A name.gan directory or file, or hf://owner/name, hf://owner/name@revision.",
        show_default=False,
        parser=local_path,
        metavar="bundle",
    ),
]

LocalBundlePath = Annotated[
    Path, typer.Argument(help="A name.gan directory or file.", show_default=False)
]
PublicKeyPath = Annotated[
    Path | None, typer.Option("--public-key", help="PEM file of whoever must have signed it.")
]


def sample(
    bundle: BundlePath,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="x.png for a grid, else a folder of PNG files.")
    ] = Path("samples.png"),
    seeds: Annotated[str, typer.Option(help="As in 0-63, or 5, or 1,4,9-12.")] = "0-63",
    labels: Annotated[
        str | None,
        typer.Option(help="Class names or numbers, as in 3, 0-9, 3:0.5+8:0.5; repeated in turn."),
    ] = None,
    truncation: Annotated[float | None, typer.Option(help="As in 0.7; none by default.")] = None,
    truncation_mode: Annotated[str | None, typer.Option(help="resample or scale.")] = None,
    columns: Annotated[int | None, typer.Option(min=1, help="Of the grid.")] = None,
    backend: Annotated[str, typer.Option(help="auto, onnxruntime or tensorrt.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, fp16.")] = "auto",
    allow_unverified: Annotated[bool, typer.Option(help="Open a --no-verify bundle.")] = False,
    public_key: PublicKeyPath = None,
) -> None:
    """Draw images from a bundle: image i depends on its seed and label alone."""
    from ganinfer.images import grid, save_png
    from ganinfer.sampler import Sampler

    numbers = parse_ranges(seeds, "--seeds")
    with Sampler(
        bundle,
        backend=backend,
        device=device,
        precision=precision,
        allow_unverified=allow_unverified,
        public_key=public_key,
    ) as sampler:
        wanted = None if labels is None else parse_labels(labels, sampler.classes, len(numbers))
        step = 64
        starts = range(0, len(numbers), step)
        if output.suffix.lower() == ".png":
            images = sampler.sample(
                seeds=numbers, labels=wanted, truncation=truncation, truncation_mode=truncation_mode
            )
            output.parent.mkdir(parents=True, exist_ok=True)
            save_png(output, grid(images, columns=columns))
        else:
            output.mkdir(parents=True, exist_ok=True)
            for start in track(starts, "Sampling", console=console, transient=True):
                part = slice(start, start + step)
                images = sampler.sample(
                    seeds=numbers[part],
                    labels=None if wanted is None else wanted[part],
                    truncation=truncation,
                    truncation_mode=truncation_mode,
                )
                for seed, image in zip(numbers[part], images, strict=True):
                    save_png(output / f"{seed:08d}.png", image)
        info = sampler.info
    console.print(
        f"{len(numbers)} images by {info['backend']} on {info['device']} in {info['precision']}"
        f" -> {output}"
    )


def inspect(bundle: BundlePath) -> None:
    """Check a bundle's files and show what is in it; nothing is run."""
    from ganinfer.bundle import Bundle

    with Bundle(bundle) as opened:
        manifest, signed = opened.manifest, opened.signature is not None
    model = manifest.model
    table = Table(title=str(bundle), title_justify="left", show_header=False)
    table.add_row("family", model.family)
    table.add_row("images", f"{model.resolution} x {model.resolution} x {model.channels}, uint8")
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
            f" batches {engine.profile[0]}-{engine.profile[2]}, {size:,} bytes, {engine.status}",
        )
    source = manifest.source
    table.add_row("trained on", f"{source.images_seen:,} images, EMA weights" if source.ema else "")
    table.add_row("checkpoint", source.checkpoint_sha256)
    table.add_row("made with", ", ".join(f"{k} {v}" for k, v in manifest.tools.items()))
    table.add_row("verified", "yes" if manifest.verified else "NO: exported with --no-verify")
    table.add_row("signed", "yes; by whom says gan verify --public-key" if signed else "no")
    console.print(table)
    if manifest.parity:
        console.print(gate_table(manifest.parity))


def keygen(
    key: Annotated[Path, typer.Argument(help="As in signing.pem.", show_default=False)],
) -> None:
    """Make a pair of keys: signing.pem, to be kept secret, and signing.pub.pem, for everybody."""
    from ganinfer.signature import make_keys

    console.print(f"{key}: keep it secret\n{make_keys(key)}: what others check bundles with")


def sign(
    bundle: LocalBundlePath,
    key: Annotated[Path, typer.Option(help="PEM file of an Ed25519 private key.")],
) -> None:
    """Sign a bundle where it lies: Sampler(public_key=...) then knows whose it is."""
    from ganinfer.bundle import sign_bundle
    from ganinfer.signature import open_private_key

    sign_bundle(bundle, open_private_key(key))
    console.print(f"{bundle}: signed")


def push(
    bundle: LocalBundlePath,
    repository: Annotated[str, typer.Argument(help="owner/name.", show_default=False)],
    private: Annotated[bool, typer.Option("--private", help="For nobody else to see.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch; the main one by default.")] = None,
) -> None:
    """Upload a bundle to the Hugging Face Hub, with a model card and its preview."""
    from ganinfer import hub

    pushed = hub.push(bundle, repository, private=private, revision=revision)
    if pushed.card_kept:
        console.print(f"{hub.CARD}: somebody has edited it; left as it is", style="yellow")
    console.print(f"-> {pushed.url}", soft_wrap=True)


def gate_table(gates: list) -> Table:  # type: ignore[type-arg]
    """A table of `ganinfer.bundle.GateResult`."""
    table = Table(title="parity", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for column in ("", "artifact", "gate", "value", "limit"):
        table.add_column(column, no_wrap=True)
    table.add_column("")
    for gate in gates:
        mark = Text("pass", style="green") if gate.passed else Text("FAIL", style="red")
        value = f"{gate.value:.4g}"
        table.add_row(mark, gate.artifact, gate.gate, value, gate.limit, gate.detail)
    return table


def parse_ranges(text: str, option: str) -> list[int]:
    """As in "1,4,9-12" -> [1, 4, 9, 10, 11, 12].

    Raises:
        RequestError: not such a list.
    """
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise RequestError(
                f"{option} {text}: expected numbers and ranges, as in 0-63 or 1,4,9-12"
            )
        end = int(last) if dash else int(first)
        if end < int(first) or end - int(first) >= 10_000_000:
            raise RequestError(
                f"{option} {part}: expected a range that rises, of at most 10,000,000"
            )
        numbers.extend(range(int(first), end + 1))
    return numbers


def parse_labels(text: str, classes: list[str], count: int) -> list[int | str | Mixture]:
    """Class names, numbers, ranges of numbers and mixtures, repeated in turn to `count` labels."""
    labels: list[int | str | Mixture] = []
    for part in text.split(","):
        name = part.strip()
        if ":" in name and name not in classes:
            labels.append(parse_mixture(name, classes))
        elif name in classes or not name[:1].isdecimal():
            labels.append(name)
        else:
            labels.extend(parse_ranges(name, "--labels"))
    return [labels[i % len(labels)] for i in range(count)]
