"""A name in a config is a module in a folder; a constructor's keywords are its options' schema.

hinge                   ours: the module of that name in the folder, gantrain/objectives/hinge.py
package.module          the user's own: an installed module, or one in the current folder
package.module:Name     what stands under Name in it

A module of the user's own holds what ours hold, under the same names: see `Kind`. `:Name` stands
for the one thing that a part of this kind is (the class of an objective or a regularizer, an
importer's function) or, where a part is several, for something that holds them, such as a class
with static methods. It is checked when it is looked up, so that a name like os:system is refused
before anything of it is called.

An own name is only ever looked up because a user wrote it: in an option, in a config, or in that of
a run which he trained and now opens. What a bundle, an index or a cache says goes through
`find_module`, which knows ours alone.
"""

import difflib
import importlib
import inspect
import pkgutil
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

from ganinfer.errors import ConfigError
from ganinfer.outside import is_own, load, place_of, sources_sha256


@dataclass(frozen=True)
class Held:
    """What a part holds under a name: in words, and as a test."""

    words: str
    fits: Callable[[Any], bool]


@dataclass(frozen=True)
class Kind:
    """A kind of part.

    Attributes:
        package: the folder of ours, such as "gantrain.objectives".
        holds: what the module of a part has.
    """

    package: str
    holds: Mapping[str, Held]


def held_class(base: type, *takes: str, overrides: tuple[str, ...] = ()) -> Held:
    """A class that inherits `base`, made of these arguments and keyword-only options."""

    def fits(found: Any) -> bool:
        return (
            inspect.isclass(found)
            and issubclass(found, base)
            and _takes(found, takes, options=True)
            and all(getattr(found, name) is not getattr(base, name) for name in overrides)
        )

    made_of = ", ".join([*takes, "*", "options"])
    words = f"a class ({made_of}) that inherits {base.__module__}.{base.__qualname__}"
    return Held(f"{words} and has {' and '.join(overrides)}" if overrides else words, fits)


def held_function(*takes: str, options: bool = False) -> Held:
    """A function of these arguments, by these names, and of keyword-only options or none."""
    words = f"a function ({', '.join([*takes, '*', 'options'] if options else takes)})"
    return Held(words, lambda found: callable(found) and _takes(found, takes, options=options))


def find_part(kind: Kind, name: str, *, where: str) -> Any:
    """A part by name, ours or the user's own; see the module.

    Args:
        kind: of part.
        name: as the user wrote it.
        where: what to name in an error: "configs/x.toml [objective] name".

    Returns:
        What has the attributes that `kind.holds` names.

    Raises:
        ConfigError: there is none, it fails as it is imported, or it does not hold what it should.
    """
    if not is_own(name):
        return find_module(kind.package, name, where=where)
    found = load(name, where=where)
    if ":" in name and len(kind.holds) == 1:
        found = SimpleNamespace(**dict.fromkeys(kind.holds, found))
    for held, must in kind.holds.items():
        if not hasattr(found, held) or (len(kind.holds) == 1 and _is_imported(found, held)):
            remedy = _remedy(kind, found, name)
            raise ConfigError(
                f"{where}: {name} has no {held} of its own; expected {must.words}; {remedy}"
            )
        if not must.fits(getattr(found, held)):
            raise ConfigError(
                f"{where}: {name}: {held} is {_described(getattr(found, held))}; expected"
                f" {must.words}"
            )
    return found


def check_has(found: object, names: list[str], *, where: str) -> None:
    """Raise a ConfigError if something that a part of the user's own made lacks attributes."""
    if missing := [name for name in names if not hasattr(found, name)]:
        raise ConfigError(
            f"{where}: {type(found).__name__} has no {', '.join(missing)}; expected"
            f" {', '.join(names)}; add what is missing"
        )


def identity(name: str) -> str:
    """A part's name for records that notice a change; of an own one name@hash of its sources."""
    return f"{name}@{sources_sha256(name)[:16]}" if is_own(name) else name


def _takes(found: Any, names: tuple[str, ...], *, options: bool) -> bool:
    """Is it called with just these arguments, and keyword-only options if there may be any?"""
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = [
        p.name.lstrip("_")
        for p in parameters
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):  # as of an nn.Module without __init__
        positional += names[len(positional) :]
    required = any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters)
    return positional == list(names) and (options or not required)


def _is_imported(found: object, held: str) -> bool:
    """Is it there only because a module imports it from another package, to build on it?"""
    if not isinstance(found, ModuleType):
        return False
    home = getattr(getattr(found, held), "__module__", None) or found.__name__
    return str(home).partition(".")[0] != found.__name__.partition(".")[0]


def _remedy(kind: Kind, found: object, name: str) -> str:
    """What stands there and would do."""
    if len(kind.holds) == 1 and isinstance(found, ModuleType):
        (must,) = kind.holds.values()
        fitting = [
            key
            for key, value in vars(found).items()
            if getattr(value, "__module__", None) == found.__name__ and must.fits(value)
        ]
        if fitting:
            return f"say which: {' or '.join(f'{name}:{key}' for key in fitting)}"
    at = f" to {place_of(found)}" if isinstance(found, ModuleType) else ""
    return f"add it{at}; a part of this kind holds {', '.join(kind.holds)}"


def _described(found: Any) -> str:
    """As in "the class Mine(margin)"."""
    if not callable(found):
        return reprlib.repr(found)
    try:
        signature = str(inspect.signature(found))
    except (TypeError, ValueError):
        signature = "(...)"
    if inspect.isclass(found):
        bases = " and ".join(base.__qualname__ for base in found.__bases__)
        return f"the class {found.__name__}{signature} that inherits {bases}"
    return f"{getattr(found, '__name__', type(found).__name__)}{signature}"


def module_names(package: str) -> list[str]:
    """The names that `find_module` knows in a package, sorted."""
    path = importlib.import_module(package).__path__
    return sorted(m.name for m in pkgutil.iter_modules(path) if not m.name.startswith("_"))


def find_module(package: str, name: str, *, where: str) -> ModuleType:
    """Import package.name, one of ours.

    Args:
        package: a folder of interchangeable parts, such as "gantrain.objectives".
        name: module in it.
        where: what to name in an error: "configs/x.toml [objective] name".

    Raises:
        ConfigError: there is no such module; the message lists those there are.
    """
    names = module_names(package)
    if name not in names:
        raise ConfigError(
            f"{where}: there is no {name!r}; {suggest(name, names)}, or package.module of your own"
        )
    return importlib.import_module(f"{package}.{name}")


def check_options(
    constructor: Callable[..., Any], options: Mapping[str, Any], *, where: str, name: str
) -> dict[str, Any]:
    """Check a config section against the keyword-only arguments of a constructor.

    Args:
        constructor: class or function; its annotations (Literal and pydantic's Field included)
            are enforced without conversion, except an integer where a float is expected. What has
            no annotation may be anything.
        options: the section's keys and values.
        where: the section to name in an error: "configs/x.toml [model.generator]".
        name: the part to name in an error: "dcgan".

    Returns:
        The options with the defaults filled in.

    Raises:
        ConfigError: an unknown or missing option, a wrong type or an impossible value.
    """
    import pydantic

    try:
        signature = inspect.signature(constructor, eval_str=True)
    except NameError as error:
        raise ConfigError(
            f"{where}: the annotations of {name!r} cannot be read ({error}); import what they name"
        ) from None
    parameters = [p for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY]
    known = [p.name for p in parameters]
    for key in options:
        if key not in known:
            takes = suggest(key, known) if known else "it takes none"
            raise ConfigError(f"{where}: {name!r} has no option {key!r}; {takes}")
    fields: dict[str, Any] = {
        p.name: (
            Any if p.annotation is p.empty else p.annotation,
            ... if p.default is p.empty else p.default,
        )
        for p in parameters
    }
    schema = pydantic.create_model(
        "Options",
        __config__=pydantic.ConfigDict(
            extra="forbid",
            strict=True,
            allow_inf_nan=False,
            arbitrary_types_allowed=True,
            protected_namespaces=(),
        ),
        **fields,
    )
    try:
        checked = schema.model_validate(dict(options))
    except pydantic.ValidationError as error:
        raise ConfigError(explain(error, where=where)) from None
    return {key: getattr(checked, key) for key in known}


def suggest(found: str, names: list[str]) -> str:
    """'it takes a, b, c' with the likeliest one first: 'did you mean a? it takes a, b, c'."""
    close = difflib.get_close_matches(found, names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}it takes {', '.join(names)}"


def explain(error: Any, *, where: str) -> str:
    """The first complaint of a pydantic ValidationError, in one line."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        return f"{where} {key}: missing, and it has no default; add it"
    message = first["msg"].removeprefix("Value error, ")
    return f"{where} {key}: found {first['input']!r}; {message[0].lower()}{message[1:]}"


def lazy_face(package: str, rooms: Mapping[str, str]) -> Callable[[str], Any]:
    """A package's `__getattr__` (PEP 562): its public names are imported when they are asked for.

    Args:
        package: its name.
        rooms: public name -> the module that has it.
    """

    def look(name: str) -> Any:
        if name not in rooms:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(rooms[name]), name)

    return look
