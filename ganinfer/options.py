"""A dataclass whose fields are a library's options and a command's at once.

A field annotated with an `Option` is also an option of every command that takes the dataclass:
`ganinfer.cli.options.expanded` makes it one. So a new option is written in one place.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, get_args, get_type_hints


@dataclass(frozen=True, kw_only=True)
class Option:
    """What a command line needs to know of a field, beside its type and its default.

    Attributes:
        help: one line.
        flag: its name on the command line; by default the field's, as in --num-images.
        parse: what makes the field's value of the text; several, if `repeated`.
        repeated: it may stand there several times, and the field is a tuple.
        metavar: what stands for the value in --help.
    """

    help: str
    flag: str | None = None
    parse: Callable[[str], Any] | None = None
    repeated: bool = False
    metavar: str | None = None


def options_of(kind: type) -> dict[str, tuple[Any, Option]]:
    """The type and the Option of each field of a dataclass that has one."""
    assert is_dataclass(kind)
    hints = get_type_hints(kind, include_extras=True)
    found = {}
    for field in fields(kind):
        value_type, *notes = get_args(hints[field.name]) or (hints[field.name],)
        for note in notes:
            if isinstance(note, Option):
                found[field.name] = (value_type, note)
    return found
