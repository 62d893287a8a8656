"""The whole road on the embedded digits: prepare, train, evaluate, export, sample."""

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import typer

from ganexport.options import ExportOptions
from ganexport.pipeline import export_run
from ganexport.web.page import write_page
from ganexport.web.runtime import kept_runtime
from ganinfer.cli.console import console, progress_bars
from ganinfer.cli.tables import show_gates
from ganinfer.drawing.images import grid, save_png
from ganinfer.sampler import Sampler
from gantrain.cli.bar import training_bar
from gantrain.cli.stopping import stop_signals
from gantrain.data.prepare import prepare
from gantrain.evaluation.evaluate import evaluate
from gantrain.game.config import load_config
from gantrain.training.train import train

RECIPE = "dcgan-digits"
RESOLUTION = 16
NUM_IMAGES = 10_000


def run_demo(folder: Path, overrides: Sequence[str] = ()) -> None:
    """Walk the road and leave data, run, bundle and pictures in `folder`.

    Called again, it goes on from where it was stopped.

    Args:
        folder: where everything goes.
        overrides: of the recipe, as in `gan train --set`.

    Raises:
        GanError: a step fails; its message says why.
    """
    data, run, bundle = folder / "data", folder / "run", folder / "digits.gan"
    _step("1 prepare", "scikit-learn's handwritten digits, 16x16")
    made = prepare("digits", data, resolution=RESOLUTION)
    console.print(f"  {made.num_images:,} images, {len(made.classes)} classes -> {data}")

    config = load_config(Path(RECIPE), [f"data.path={data}", *overrides])
    _step("2 train", f"{RECIPE}: {config.train.total_kimg:g},000 images")
    with stop_signals(run) as signals, training_bar() as report:
        outcome = train(
            config,
            run,
            on_progress=report,
            should_stop=signals.should_stop,
            should_save=signals.should_save,
        )
    if not outcome.finished:
        console.print("  stopped and saved; the same command goes on from there")
        raise typer.Exit(signals.exit_code)
    console.print(f"  -> {outcome.checkpoint}")

    _step("3 measure", f"{NUM_IMAGES:,} images of the averaged generator")
    with progress_bars() as show:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        scores = evaluate(
            run,
            data,
            metrics=["fid", "label_accuracy"],
            num_images=NUM_IMAGES,
            device=device,
            progress=show,
        ).values
    console.print(
        f"  FID {scores['fid']:.2f} (classifier features),"
        f" a classifier sees the right digit in {scores['label_accuracy']:.1%}"
    )

    rtx = importlib.util.find_spec("tensorrt_rtx") is not None
    _step("4 export", "to ONNX fp32 and fp16" + (" and TensorRT-RTX" if rtx else ""))
    with progress_bars() as show:
        options = ExportOptions(
            num_images=NUM_IMAGES, tensorrt=rtx, product="tensorrt_rtx" if rtx else "auto"
        )
        exported = export_run(run, bundle, options, progress=show)
    show_gates(exported.gates)
    for engine in exported.engines:
        entry = engine.entry
        status = "pending until a GPU opens it" if entry.status == "pending" else entry.status
        console.print(f"  engine {entry.precision}, {entry.target}: {status}")

    _step("5 sample", "through ganinfer, torch left out")
    with Sampler(bundle) as sampler:
        by_class = sampler.sample(100, seed=0, labels=[i % 10 for i in range(100)])
        morph = sampler.interpolate(3, 8, 10, label=3)
        info = sampler.info
    save_png(folder / "digits.png", grid(by_class, columns=10))
    save_png(folder / "interpolation.png", grid(morph, columns=10))
    console.print(f"  {info['backend']} on {info['device']} in {info['precision']}")

    gan, python = sys.argv[0], Path(sys.argv[0]).with_name("python")  # as this was called
    page, to_make_it = "", f"\n  {gan} fetch web && {gan} web {bundle} -o digits.html"
    if kept_runtime().exists():
        write_page(bundle, folder / "digits.html")
        page, to_make_it = "\n  digits.html         a page that draws; open it in a browser", ""
    console.print(
        f"""
Done. Everything is in {folder}/
  digits.png          100 samples, a digit a column
  interpolation.png   from one seed to another
  digits.gan/         the bundle; ship this
  run/                checkpoints, samples/, stats.jsonl, tensorboard/{page}

Go on:
  {gan} sample {bundle} --seeds 0-63 --labels 3 -o threes.png
  {gan} verify {bundle} --run {run}{to_make_it}
  {python} -c "from ganinfer import Sampler; print(Sampler('{bundle}').sample(8, labels=7).shape)"
""",
        soft_wrap=True,
    )


def _step(name: str, what: str) -> None:
    console.print(name, style="bold", end=" ")
    console.print(what)
