"""Options that several commands have, and how their texts are read."""

from pathlib import Path
from typing import Annotated

import typer

from ganinfer.bundle.hub import local_path
from ganinfer.drawing.mixing import Mixture, parse_mixture
from ganinfer.errors import RequestError

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


Backend = Annotated[
    str, typer.Option(help="auto, one of ganinfer/backends/, or your own package.module.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Precision = Annotated[str, typer.Option(help="auto, or one that the bundle holds: fp32, ...")]
AllowUnverified = Annotated[bool, typer.Option(help="Open a --no-verify bundle.")]


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
