"""gan sample, gan inspect, gan keygen, gan sign, gan push."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    ProgressColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    track,
)
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from ganinfer.bundle.hub import local_path
from ganinfer.drawing.mixing import Mixture, parse_mixture
from ganinfer.errors import RequestError
from ganinfer.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ganinfer.bundle.engine_report import EngineReport
    from ganinfer.bundle.manifest import Engine, GateResult

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


@contextmanager
def progress_bars(*amount: ProgressColumn) -> Iterator[Progress]:
    """A callback (what is being done, done, in all) that shows one bar for each thing done.

    amount: columns that say how much is done; by default its share.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        *(amount or (TaskProgressColumn(),)),
        TimeRemainingColumn(),
    )
    shown = console.is_terminal
    with Bars(*columns, console=console, transient=True, disable=not shown) as bars:
        tasks: dict[str, TaskID] = {}

        def report(name: str, done: int, total: int) -> None:
            if name not in tasks:  # what was done before is not part of the speed
                tasks[name] = bars.add_task(name, total=total, completed=done)
            bars.update(tasks[name], completed=done, total=total)

        yield report


Backend = Annotated[str, typer.Option(help="auto, or a module of ganinfer/backends/.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Precision = Annotated[str, typer.Option(help="auto, or one that the bundle holds: fp32, ...")]
AllowUnverified = Annotated[bool, typer.Option(help="Open a --no-verify bundle.")]


def sample(
    bundle: BundlePath,
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", help="x.png for a grid, else a folder: of PNG files; with -n, shards."
        ),
    ] = Path("samples.png"),
    seeds: Annotated[
        str | None, typer.Option(help="As in 0-63, the default, or 5, or 1,4,9-12.")
    ] = None,
    num: Annotated[
        int | None, typer.Option("-n", "--num", min=1, help="Write so many images as shards.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="With -n: the first; 0 by default.")] = None,
    shard_format: Annotated[
        str | None, typer.Option("--format", help="With -n: tar (WebDataset; default) or npz.")
    ] = None,
    shard_size: Annotated[
        int | None, typer.Option(min=1, help="With -n: images in a file; 10000 by default.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="With -n: threads that encode.")
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(help="Class names or numbers, as in 3, 0-9, 3:0.5+8:0.5; repeated in turn."),
    ] = None,
    truncation: Annotated[float | None, typer.Option(help="As in 0.7; none by default.")] = None,
    truncation_mode: Annotated[str | None, typer.Option(help="resample or scale.")] = None,
    columns: Annotated[int | None, typer.Option(min=1, help="Of the grid.")] = None,
    backend: Backend = "auto",
    device: Device = "auto",
    precision: Precision = "auto",
    allow_unverified: AllowUnverified = False,
    public_key: PublicKeyPath = None,
) -> None:
    """Draw images from a bundle: image i depends on its seed and label alone."""
    from ganinfer.drawing.images import grid, save_png
    from ganinfer.drawing.latents import seed_array
    from ganinfer.sampler import Sampler
    from ganinfer.shards import write_shards
    from ganinfer.shards_cli import shards_bar

    of_shards = (seed, shard_format, shard_size, workers)
    if num is None and any(option is not None for option in of_shards):
        raise RequestError("--seed, --format, --shard-size, --workers: they go with -n")
    if num is not None and (seeds is not None or output.suffix.lower() == ".png"):
        raise RequestError(
            "-n: writes shards of --seed and those that follow into the folder -o; for a picture,"
            " or seeds of your choice, leave -n out"
        )
    numbers = parse_ranges("0-63" if seeds is None else seeds, "--seeds")
    seed_array(numbers)  # complain before anything is made
    suffix = output.suffix.lower()
    if suffix in (".jpg", ".jpeg", ".webp", ".gif"):
        raise RequestError(f"-o {output}: expected x.png, or a folder")
    if num is None and suffix != ".png" and len(set(numbers)) < len(numbers):
        raise RequestError("--seeds: one is there twice, and files are named by seeds; use x.png")
    with Sampler(
        bundle,
        backend=backend,
        device=device,
        precision=precision,
        allow_unverified=allow_unverified,
        public_key=public_key,
    ) as sampler:
        classes = None if labels is None else parse_labels(labels, sampler.classes)
        wanted = None if classes is None else in_turn(classes, len(numbers))
        step = 64
        starts = range(0, len(numbers), step)
        if num is not None:
            with shards_bar() as report:
                written = write_shards(
                    sampler,
                    num,
                    output,
                    seed=seed or 0,
                    labels=classes,
                    truncation=truncation,
                    truncation_mode=truncation_mode,
                    format=shard_format or "tar",
                    shard_size=shard_size or 10_000,
                    workers=workers,
                    progress=report,
                )
            console.print(f"{written.num_kept} of {len(written.shards)} shards were there before")
            for name in written.damaged:
                console.print(f"{name}: damaged or missing; drawn again", style="yellow")
        elif suffix == ".png":
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
        f"{num or len(numbers)} images by {info['backend']} on {info['device']}"
        f" in {info['precision']} -> {output}"
    )


def inspect(
    bundle: BundlePath,
    engines: Annotated[bool, typer.Option("--engines", help="And what is in its engines.")] = False,
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
            f" batches {', '.join(f'{low}-{high}' for low, _, high in engine.profiles)},"
            f" {size:,} bytes, {engine.status}",
        )
    source = manifest.source
    table.add_row("trained on", f"{source.images_seen:,} images, EMA weights" if source.ema else "")
    table.add_row("checkpoint", source.checkpoint_sha256)
    table.add_row("made with", ", ".join(f"{k} {v}" for k, v in manifest.tools.items()))
    table.add_row("verified", "yes" if manifest.verified else "NO: exported with --no-verify")
    table.add_row("signed", "yes; by whom says gan verify --public-key" if signed else "no")
    console.print(table)
    if manifest.parity:
        show_gates(manifest.parity)
    for entry, report in zip(manifest.engines, reports, strict=False):
        console.print(engine_table(entry, report))


def engine_table(entry: "Engine", report: "EngineReport") -> Table:
    """A table of an engine's layers."""
    memory = report.device_memory_bytes
    title = (
        f"engine {entry.precision} for {entry.target}, read from the {report.read_from}:"
        f" weights {report.weights_bytes:,} bytes, plan {report.plan_bytes:,} bytes, activations"
        f" {'not known' if memory is None else f'{memory:,} bytes'}"
    )
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for column in ("layer", "type", "inputs", "outputs", "of the generator"):
        table.add_column(column, overflow="fold")
    for layer in report.layers:
        types = ", ".join(layer.inputs), ", ".join(layer.outputs)
        table.add_row(layer.name, layer.type, *types, ", ".join(layer.layers))
    return table


def keygen(
    key: Annotated[Path, typer.Argument(help="As in signing.pem.", show_default=False)],
) -> None:
    """Make a pair of keys: signing.pem, to be kept secret, and signing.pub.pem, for everybody."""
    from ganinfer.bundle.signature import make_keys

    console.print(f"{key}: keep it secret\n{make_keys(key)}: what others check bundles with")


def sign(
    bundle: LocalBundlePath,
    key: Annotated[Path, typer.Option(help="PEM file of an Ed25519 private key.")],
) -> None:
    """Sign a bundle where it lies: Sampler(public_key=...) then knows whose it is."""
    from ganinfer.bundle.archive import sign_bundle
    from ganinfer.bundle.signature import open_private_key

    sign_bundle(bundle, open_private_key(key))
    console.print(f"{bundle}: signed")


def push(
    bundle: LocalBundlePath,
    repository: Annotated[str, typer.Argument(help="owner/name.", show_default=False)],
    private: Annotated[bool, typer.Option("--private", help="For nobody else to see.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch; the main one by default.")] = None,
) -> None:
    """Upload a bundle to the Hugging Face Hub, with a model card and its preview."""
    from ganinfer.bundle import hub

    pushed = hub.push(bundle, repository, private=private, revision=revision)
    if pushed.card_kept:
        console.print(f"{hub.CARD}: somebody has edited it; left as it is", style="yellow")
    console.print(f"-> {pushed.url}", soft_wrap=True)


def show_gates(gates: "Sequence[GateResult]") -> None:
    """Print gates as a table, artifact by artifact; what there is to say of them stands below."""
    table = Table(title="parity", title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column("gate", no_wrap=True)
    for column in ("images", "value", "95 %"):
        table.add_column(column, no_wrap=True, justify="right")
    table.add_column("limit", no_wrap=True)
    for artifact in dict.fromkeys(gate.artifact for gate in gates):
        table.add_row("", Text(artifact, style="bold"))
        for gate in gates:
            if gate.artifact == artifact:
                table.add_row(*_gate_row(gate))
    console.print(table)
    for gate in gates:
        if gate.detail:
            console.print(f"{gate.artifact}: {gate.gate}: {gate.detail}", soft_wrap=True)


def _gate_row(gate: "GateResult") -> tuple[Text | str, ...]:
    mark = Text("pass", style="green") if gate.passed else Text("FAIL", style="red")
    images = "" if gate.num_images is None else f"{gate.num_images:,}"
    known = gate.low is not None and gate.high is not None
    interval = f"{gate.low:.3g}\u2013{gate.high:.3g}" if known else ""
    return mark, gate.gate, images, f"{gate.value:.4g}", interval, gate.limit


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


def parse_labels(text: str, classes: list[str]) -> list[int | str | Mixture]:
    """Class names, numbers, ranges of numbers, and mixtures."""
    labels: list[int | str | Mixture] = []
    for part in text.split(","):
        name = part.strip()
        if ":" in name and name not in classes:
            labels.append(parse_mixture(name, classes))
        elif name in classes or not name[:1].isdecimal():
            labels.append(name)
        else:
            labels.extend(parse_ranges(name, "--labels"))
    return labels


def in_turn(labels: list[int | str | Mixture], count: int) -> list[int | str | Mixture]:
    """Labels repeated to `count`."""
    return [labels[i % len(labels)] for i in range(count)]
