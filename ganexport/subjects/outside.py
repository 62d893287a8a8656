"""Generators that gantrain did not train: a factory's of the user's own, or an importer's."""

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import nn

from ganexport.subjects.spec import Spec
from ganexport.subjects.subject import Subject, of_module
from ganexport.subjects.weights import load_weights, read_state
from ganinfer.errors import ConfigError, ExportError
from ganinfer.lookup import Kind, check_options, find_part, held_function
from ganinfer.outside import current_folder, load, load_file

IMPORTER = Kind("ganexport.importers", {"read": held_function("state", options=True)})


def of_factory(
    factory: str,
    weights: Path | None,
    key: str | None,
    options: Mapping[str, Any],
    arguments: Mapping[str, Any] | None = None,
) -> Subject:
    """A network that a function makes.

    Args:
        factory: "package.module:function" or "path/to/file.py:function"; it gives an nn.Module,
            or an nn.Module and its Spec. A class will do as well.
        weights, key: as in `load_weights`; no weights if it has them.
        options: z_dim, classes (names, or how many), z_distribution, truncation, family,
            output_range, channel_order, noise, noise_shape; they go before the factory's Spec.
        arguments: keyword arguments of the factory.

    Returns:
        The subject; its notes begin with what was chosen in the file of weights.

    Raises:
        ExportError: there is no such function, or what it makes cannot be exported.
        ConfigError: an unknown or impossible option.
    """
    made = _call(factory, arguments or {})
    module, spec = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(module, nn.Module) or not isinstance(spec, Spec | None):
        raise ExportError(f"{factory}: gives {type(made).__name__}; expected an nn.Module")
    needed = {} if spec is None else {"z_dim": spec.z_dim}
    checked = check_options(_spec, {**needed, **options}, where="--set", name="a generator")
    if spec is None:
        spec = Spec(**checked)
    else:
        spec = dataclasses.replace(spec, **{name: checked[name] for name in options})
    chosen: list[str] = []
    if weights is not None:
        load_weights(module, weights, key, say=chosen.append)
    return _noted(chosen, of_module(module, spec))


def of_import(
    importer: str,
    weights: Path | None,
    key: str | None,
    options: Mapping[str, Any],
) -> Subject:
    """Another project's generator, from its state dict.

    Args:
        importer: module in ganexport.importers, or package.module or package.module:function of
            the user's own.
        weights, key: as in `read_state`.
        options: of the importer's `read`.

    Returns:
        The subject; its notes begin with what was chosen in the file of weights.

    Raises:
        ConfigError: an unknown importer or option.
        ExportError: the weights are missing, or not those of that project.
    """
    module = find_part(IMPORTER, importer, where="--from")
    checked = check_options(module.read, dict(options), where="--set", name=importer)
    if weights is None:
        raise ExportError(f"--from {importer}: it needs the published weights; give --weights")
    chosen: list[str] = []
    network, spec = module.read(read_state(weights, key, say=chosen.append), **checked)
    return _noted(chosen, of_module(network, spec))


def _noted(chosen: Sequence[str], subject: Subject) -> Subject:
    return dataclasses.replace(subject, notes=(*chosen, *subject.notes))


def _spec(
    *,
    z_dim: int,
    classes: int | list[str] = 0,
    z_distribution: str = "normal",
    truncation: float | None = None,
    family: str = "custom",
    output_range: str | None = None,
    channel_order: Literal["rgb", "bgr"] = "rgb",
    noise: Literal["fixed", "off"] = "fixed",
    noise_shape: list[int] | list[list[int]] = [],  # noqa: B006 - read, never called
) -> None:
    """The options of a Spec, as `check_options` reads them."""


def _call(factory: str, arguments: Mapping[str, Any]) -> Any:
    if ":" not in factory:
        raise ExportError(f"--module {factory}: expected package.module:function")
    place, _, name = factory.rpartition(":")
    with current_folder():  # what it imports as it is called lies beside it
        try:
            if place.endswith(".py"):
                function = load_file(Path(place), name, where=f"--module {factory}")
            else:
                function = load(factory, where=f"--module {factory}")
        except ConfigError as error:
            raise ExportError(
                f"{error}; expected package.module:function, importable from here, or"
                " path/to/file.py:function"
            ) from error.__cause__
        try:
            inspect.signature(function).bind(**arguments)
        except (TypeError, ValueError) as error:
            takes = f"{name}{inspect.signature(function)}" if callable(function) else "no function"
            raise ExportError(
                f"--module {factory}: {error}; it is {takes}; give what it needs with --arg,"
                " as in --arg ngf=64"
            ) from None
        try:
            return function(**arguments)
        except Exception as error:
            text = str(error).strip().splitlines() or [""]
            raise ExportError(
                f"--module {factory}: fails: {type(error).__name__}: {text[0][:300]}"
            ) from error
