"""A name in a config is a module in a folder; a constructor's keywords are its options' schema."""

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from ganinfer.errors import ConfigError


def module_names(package: str) -> list[str]:
    """The names that `find_module` knows in a package, sorted."""
    path = importlib.import_module(package).__path__
    return sorted(m.name for m in pkgutil.iter_modules(path) if not m.name.startswith("_"))


def find_module(package: str, name: str, *, where: str) -> ModuleType:
    """Import package.name.

    Args:
        package: a folder of interchangeable parts, such as "gantrain.objectives".
        name: module in it.
        where: what to name in an error: "configs/x.toml [objective] name".

    Raises:
        ConfigError: there is no such module; the message lists those there are.
    """
    names = module_names(package)
    if name not in names:
        raise ConfigError(f"{where}: there is no {name!r}; {suggest(name, names)}")
    return importlib.import_module(f"{package}.{name}")


def check_options(
    constructor: Callable[..., Any], options: Mapping[str, Any], *, where: str, name: str
) -> dict[str, Any]:
    """Check a config section against the keyword-only arguments of a constructor.

    Args:
        constructor: class or function; its annotations (Literal and pydantic's Field included)
            are enforced without conversion, except an integer where a float is expected.
        options: the section's keys and values.
        where: the section to name in an error: "configs/x.toml [model.generator]".
        name: the part to name in an error: "dcgan".

    Returns:
        The options with the defaults filled in.

    Raises:
        ConfigError: an unknown or missing option, a wrong type or an impossible value.
    """
    import pydantic

    parameters = [
        p
        for p in inspect.signature(constructor, eval_str=True).parameters.values()
        if p.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    known = [p.name for p in parameters]
    for key in options:
        if key not in known:
            takes = suggest(key, known) if known else "it takes none"
            raise ConfigError(f"{where}: {name!r} has no option {key!r}; {takes}")
    fields: dict[str, Any] = {
        p.name: (p.annotation, ... if p.default is inspect.Parameter.empty else p.default)
        for p in parameters
    }
    schema = pydantic.create_model(
        "Options",
        __config__=pydantic.ConfigDict(extra="forbid", strict=True, allow_inf_nan=False),
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
