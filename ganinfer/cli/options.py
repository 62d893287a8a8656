"""Options that several commands have, and how their texts are read."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ganinfer.api_keys import API_KEY
from ganinfer.cli.console import fetched_path
from ganinfer.drawing.mixing import Mixture, parse_mixture
from ganinfer.engines.cluster import Cluster
from ganinfer.errors import RequestError
from ganinfer.options import Option, options_of

BundlePath = Annotated[
    Path,
    typer.Argument(
        help="A name.gan directory or file, or hf://owner/name[@revision], https://, s3://, ...",
        show_default=False,
        parser=fetched_path,
        metavar="bundle",
    ),
]

LocalBundlePath = Annotated[
    Path, typer.Argument(help="A name.gan directory or file.", show_default=False)
]
PublicKeyPath = Annotated[
    Path | None,
    typer.Option(
        "--public-key", help="Public key of whoever must have signed the bundle, a PEM file."
    ),
]

ServedName = Annotated[
    str | None,
    typer.Option(
        "--model", help="With --server: name of the model there; the bundle's by default."
    ),
]
ApiKeyFile = Annotated[
    Path | None,
    typer.Option(
        help=f"With --server: file of its API key; else ${API_KEY} has it, if there is one."
    ),
]

Truncation = Annotated[
    float | None, typer.Option(help="Truncation of the latents, as in 0.7; none by default.")
]
TruncationMode = Annotated[
    str | None,
    typer.Option(
        help="How latents are truncated: resample, scale or network; the model's first by default."
    ),
]

Engine = Annotated[
    Literal["ray"] | None,
    typer.Option(help="Who does the work. ray: actors of a cluster; else this process."),
]


def chosen_cluster(engine: str | None, cluster: Cluster) -> Cluster | None:
    """Where the work is done, None for this process.

    Raises:
        RequestError: options of a cluster without an engine.
    """
    if engine is None and cluster != Cluster():
        raise RequestError(f"{', '.join(flags_of(Cluster))}: they go with --engine ray")
    return None if engine is None else cluster


def flags_of(kind: type) -> list[str]:
    """The options of a dataclass, as the command line has them."""
    return [
        f"--{option.flag or name.replace('_', '-')}"
        for name, (_, option) in options_of(kind).items()
    ]


def expanded(command: Callable[..., None]) -> Callable[..., None]:
    """A command with an option for each field of its parameters that are dataclasses.

    See `ganinfer.options`. The command gets the dataclass, made of what the user gave; what is not
    given has the field's default.
    """
    parameters: list[inspect.Parameter] = []
    expansions: dict[str, type] = {}
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        if is_dataclass(kind := parameter.annotation):
            assert isinstance(kind, type)
            expansions[parameter.name] = kind
            defaults = {field.name: field.default for field in fields(kind)}
            parameters += [
                _command_line(name, value_type, option, defaults[name])
                for name, (value_type, option) in options_of(kind).items()
            ]
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(command)
    def run(**given: Any) -> None:
        for parameter, kind in expansions.items():
            texts = {name: given.pop(name) for name in options_of(kind)}
            given[parameter] = kind(**_values(kind, texts))
        command(**given)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


def _command_line(name: str, kind: Any, option: Option, default: Any) -> inspect.Parameter:
    """What Typer reads of a field."""
    assert default is not MISSING
    flag = f"--{option.flag or name.replace('_', '-')}"
    if kind is bool and default:
        flag += f"/--no-{flag.removeprefix('--')}"
    if option.repeated:
        kind, default = list[str] | None, None
    elif option.parse is not None:
        kind, default = str | None, default if isinstance(default, str) else None
    note = typer.Option(flag, help=option.help, metavar=option.metavar)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, note]
    )


def _values(kind: type, texts: dict[str, Any]) -> dict[str, Any]:
    """A dataclass's arguments, of what Typer read."""
    values: dict[str, Any] = {}
    for name, (_, option) in options_of(kind).items():
        found = texts[name]
        if option.repeated:
            if found:
                values[name] = [option.parse(text) if option.parse else text for text in found]
        elif option.parse is None or found is not None:
            values[name] = option.parse(found) if option.parse else found
    return values


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
    """Class names, numbers, ranges, and mixtures.

    A range is of names where all names are numbers, and of the classes' numbers otherwise.

    Raises:
        RequestError: it is written otherwise, or a name of a range is missing.
    """
    labels: list[int | str | Mixture] = []
    for part in text.split(","):
        name = part.strip()
        if ":" in name and name not in classes:
            labels.append(parse_mixture(name, classes))
        elif name in classes or not name[:1].isdecimal():
            labels.append(name)
        elif "-" in name and all(known.isdecimal() for known in classes):
            labels.extend(_numbers_named(parse_ranges(name, "--labels"), name, classes))
        else:
            labels.extend(parse_ranges(name, "--labels"))
    return labels


def _numbers_named(names: list[int], text: str, classes: list[str]) -> list[int]:
    """The classes' numbers of names that are numbers."""
    number_of = {name: number for number, name in enumerate(classes)}
    if missing := [str(name) for name in names if str(name) not in number_of]:
        raise RequestError(
            f"--labels {text}: there is no class {missing[0]}; expected a range of names among"
            f" {', '.join(classes[:12])}{', ...' if len(classes) > 12 else ''}"
        )
    return [number_of[str(name)] for name in names]


def in_turn(labels: list[int | str | Mixture], count: int) -> list[int | str | Mixture]:
    """Labels repeated to `count`."""
    return [labels[i % len(labels)] for i in range(count)]
