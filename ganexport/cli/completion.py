"""What a shell completes as values of arguments and options: `gan --install-completion`."""

import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import typer
from typer.models import ParameterInfo

from ganinfer.lookup import module_names

if TYPE_CHECKING:
    from ganinfer.bundle.manifest import Manifest

_PRECISIONS = ("fp32", "fp16", "bf16", "int8", "fp8")


def complete_values(command: Callable[..., None]) -> Callable[..., None]:
    """Let a shell complete the values of a command's parameters, by the parameters' names."""
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        for note in get_args(parameter.annotation):
            if isinstance(note, ParameterInfo) and name in _COMPLETIONS:
                note.autocompletion = _COMPLETIONS[name]
    return command


def _recipes(incomplete: str) -> list[str]:
    from gantrain.game.recipes import shipped_recipes

    return _begun(shipped_recipes(), incomplete)


def _backends(incomplete: str) -> list[str]:
    return _begun(module_names("ganinfer.backends"), incomplete)


def _formats(incomplete: str) -> list[str]:
    return _begun(module_names("ganinfer.formats"), incomplete)


def _importers(incomplete: str) -> list[str]:
    return _begun(module_names("ganexport.importers"), incomplete)


def _metrics(incomplete: str) -> list[str]:
    return _last_of_list(module_names("gantrain.metrics"), incomplete)


def _precisions(ctx: typer.Context, incomplete: str) -> list[str]:
    """Those of the bundle that stands before it; all where none does."""
    manifest = _manifest(ctx)
    held = [graph.precision for graph in manifest.graphs] if manifest else _PRECISIONS
    return _begun(held, incomplete)


def _classes(ctx: typer.Context, incomplete: str) -> list[str]:
    """Those of the bundle that stands before it."""
    manifest = _manifest(ctx)
    return _last_of_list(manifest.model.classes if manifest else [], incomplete)


_COMPLETIONS: dict[str, Callable[..., list[str]]] = {
    "config": _recipes,
    "backend": _backends,
    "require": _backends,
    "shard_format": _formats,
    "importer": _importers,
    "metrics": _metrics,
    "precision": _precisions,
    "precisions": _precisions,
    "label": _classes,
    "labels": _classes,
}


def _begun(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _last_of_list(names: Iterable[str], incomplete: str) -> list[str]:
    """Of `a,b,c` the last; what stands before it stays."""
    before, comma, last = incomplete.rpartition(",")
    return [before + comma + name for name in _begun(names, last)]


def _manifest(ctx: typer.Context) -> "Manifest | None":
    """What the bundle on this disk says of itself that the line names; None if it names none."""
    from ganinfer.bundle.archive import Bundle
    from ganinfer.errors import GanError

    # An option without its value yet leaves what stands on the line unread.
    for place in (ctx.params.get("bundle"), *ctx.args):
        try:
            with Bundle(Path(place or "")) as bundle:
                return bundle.manifest
        except GanError:
            pass
    return None
