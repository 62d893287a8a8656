"""The `gan` command: those of all floors, and gan inspect and gan demo."""

import errno
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

import ganexport.cli.export
import ganexport.cli.triton
import ganexport.cli.verify
import ganexport.cli.web
import ganinfer.cli.bench
import ganinfer.cli.bundle
import ganinfer.cli.doctor
import ganinfer.cli.film
import ganinfer.cli.sample
import ganinfer.cli.serve
import gantrain.cli.compare
import gantrain.cli.evaluate
import gantrain.cli.train
from ganexport.cli.completion import complete_values
from ganexport.cli.help import Command, Group, examples
from ganinfer.cli.console import console, errors
from ganinfer.cli.options import BundlePath
from ganinfer.errors import EXTRAS, Ending, GanError, ending_of, missing_extra
from ganinfer.files import check_place

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Train GANs, export them with proof of parity, sample them fast.",
    epilog="Exit codes: " + ", ".join(f"{e.value} {e.name.lower()}" for e in Ending) + ".",
)


@app.callback()
def options(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show what is going on.")
    ] = False,
    _version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=ganinfer.cli.doctor.version,
            is_eager=True,
            help="Show the versions of ganpipe and of what it runs on.",
        ),
    ] = False,
) -> None:
    """Options of every command."""
    logging.basicConfig(
        level=logging.INFO if verbose else logging.ERROR,
        format="%(name)s: %(message)s",
    )
    logging.captureWarnings(True)


def inspect(
    bundle: BundlePath,
    engines: Annotated[
        bool, typer.Option("--engines", help="Also show what is in its engines.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option(help="Also draw the graph there, a page that needs nothing else.")
    ] = None,
) -> None:
    """Check a bundle's files and show what is in it; nothing is run."""
    if html is not None:
        check_place(html)
    ganinfer.cli.bundle.inspect(bundle, engines=engines)
    if html is not None:
        from ganexport.graph.drawing import draw_bundle

        draw_bundle(bundle, html)
        console.print(f"{html}: open it in a browser", soft_wrap=True)


def demo(
    folder: Annotated[Path, typer.Argument(help="Folder that everything goes into.")] = Path(
        "gan-demo"
    ),
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change the recipe: section.key=value, as in gan train."),
    ] = None,
) -> None:
    """Walk the whole road on scikit-learn's handwritten digits, in a few minutes on a CPU."""
    from ganexport.demo import run_demo

    run_demo(folder, overrides or [])


_COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {
    "Begin": (demo, ganinfer.cli.doctor.doctor),
    "Train and measure": (
        gantrain.cli.train.prepare,
        gantrain.cli.train.train,
        gantrain.cli.train.runs,
        gantrain.cli.evaluate.report,
        gantrain.cli.evaluate.evaluate,
        gantrain.cli.compare.compare,
        gantrain.cli.evaluate.statistics,
        ganexport.cli.web.fetch,
    ),
    "Ship": (
        ganexport.cli.export.export,
        ganexport.cli.verify.verify,
        inspect,
        ganexport.cli.export.extract,
        ganexport.cli.triton.triton,
        ganexport.cli.web.web,
        ganinfer.cli.bundle.pack,
        ganinfer.cli.bundle.unpack,
        ganinfer.cli.bundle.keygen,
        ganinfer.cli.bundle.sign,
        ganinfer.cli.bundle.push,
    ),
    "Sample and serve": (
        ganinfer.cli.sample.sample,
        ganinfer.cli.film.interpolate,
        ganinfer.cli.film.truncations,
        ganinfer.cli.film.styles,
        ganinfer.cli.bench.bench,
        ganinfer.cli.serve.serve,
    ),
}
for _group, _commands in _COMMANDS.items():
    for _command in _commands:
        made = app.command(rich_help_panel=_group, cls=Command, epilog=examples(_command.__name__))
        made(complete_values(_command))


def main() -> None:
    """The `gan` command. A user's mistake ends in a message and its exit code, no traceback."""
    # Torch then asks Linux for large pages: where a kernel is slow to give pages, half the time.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    try:
        app()
    except GanError as error:
        _fail(error)
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name not in EXTRAS:
            raise
        _fail(missing_extra(name))
    except OSError as error:
        if error.errno is None:
            raise
        where = f"{error.filename}: " if error.filename else ""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "free some space, or choose" if full else "choose"
        _fail(error, f"{where}{error.strerror}; {remedy} another place")
    except KeyboardInterrupt:  # before Typer listens, or after
        sys.exit(Ending.INTERRUPTED)
    except ValueError as error:  # as which pydantic tells that it was interrupted
        if "KeyboardInterrupt" not in str(error):
            raise
        sys.exit(Ending.INTERRUPTED)
    except (MemoryError, RuntimeError) as error:
        if not _lacks_memory(error):
            raise
        said = str(error).partition("\n")[0] or type(error).__name__
        less = "gan train holds less at once with a smaller train.microbatch_size or batch_size"
        _fail(error, f"out of memory ({said}); {less}")


def _lacks_memory(error: MemoryError | RuntimeError) -> bool:
    """Python, NumPy, torch on a GPU, and torch and onnxruntime on the CPU say it in four ways."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return "allocate memory" in str(error)


def _fail(error: Exception, message: str | None = None) -> None:
    errors.print("error: ", style="red", end="")
    errors.print(message or str(error), soft_wrap=True)
    sys.exit(ending_of(error))
