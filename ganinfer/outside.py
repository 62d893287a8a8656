"""Modules of the user's own: found beside him as by `python -m`, and what fails said in words."""

import contextlib
import hashlib
import importlib
import inspect
import logging
import os
import pkgutil
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from ganinfer.errors import ConfigError

log = logging.getLogger(__name__)


def is_own(name: str) -> bool:
    """Does a name mean something of the user's own? Ours have neither dot nor colon."""
    return "." in name or ":" in name


def load(name: str, *, where: str) -> Any:
    """Import a module of the user's own, or something in it.

    Args:
        name: "package.module" or "package.module:Name".
        where: what to name in an error: "configs/x.toml [objective] name".

    Raises:
        ConfigError: it is written otherwise, is not there, or fails as it is imported.
    """
    path, colon, attribute = name.partition(":")
    parts = [*path.split("."), attribute] if colon else path.split(".")
    if not all(part.isidentifier() and not part.startswith("_") for part in parts):
        raise ConfigError(
            f"{where}: found {name!r}; expected package.module or package.module:Name, of names"
            " that do not begin with _"
        )
    module = _import(path, where)
    return _attribute(module, attribute, where) if colon else module


def _attribute(module: ModuleType, name: str, where: str) -> Any:
    if not hasattr(module, name):
        names = [n for n, v in vars(module).items() if n[0] != "_" and not inspect.ismodule(v)]
        raise ConfigError(
            f"{where}: {module.__name__} ({place_of(module)}) has no {name!r}; it has"
            f" {', '.join(names) or 'nothing'}"
        )
    return getattr(module, name)


def load_file(path: Path, attribute: str, *, where: str) -> Any:
    """Import a file of the user's own that is no part of a package, for something in it.

    Raises:
        ConfigError: it is not there, fails as it is imported, or has no such thing.
    """
    spec = spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ConfigError(f"{where}: there is no Python file {path}")
    module = module_from_spec(spec)
    beside = str(path.parent.resolve())
    sys.path.insert(0, beside)  # what it imports of its neighbours
    try:
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise _failed(error, path.stem, where) from error
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(beside)
    return _attribute(module, attribute, where)


@contextmanager
def current_folder() -> Iterator[None]:
    """Within it the current folder is importable, before all others.

    Only while something of the user's own is imported: what else a process imports later is not to
    be found in whatever folder it was started from.
    """
    here = _here()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the module has changed the path itself
            sys.path.remove(here)


def place_of(module: ModuleType) -> str:
    """The file or folder that a module was imported from."""
    file = getattr(module, "__file__", None)
    return file or next(iter(getattr(module, "__path__", [])), "built in")


def sources_sha256(name: str) -> str:
    """Of all Python files of the package that a name lies in, once it has been loaded."""
    root = sys.modules[name.partition(":")[0].partition(".")[0]]
    digest = hashlib.sha256()
    # One without __init__.py is found once for each way that leads to it.
    folders = dict.fromkeys(Path(folder).resolve() for folder in getattr(root, "__path__", []))
    for folder in folders:
        for file in sorted(folder.rglob("*.py")):
            digest.update(f"{file.relative_to(folder).as_posix()}\0".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    if not hasattr(root, "__path__") and root.__file__:
        digest.update(Path(root.__file__).read_bytes())
    return digest.hexdigest()


def _import(path: str, where: str) -> ModuleType:
    known = path in sys.modules
    with current_folder():
        try:
            module = importlib.import_module(path)
        except (Exception, SystemExit) as error:
            missing = error.name if isinstance(error, ModuleNotFoundError) else None
            if missing and f"{path}.".startswith(f"{missing}."):
                raise ConfigError(f"{where}: {path}: {_not_there(missing)}") from None
            raise _failed(error, path, where) from error
    if not known:
        log.info("%s: imported %s, %s", where, path, place_of(module))
    return module


def _failed(error: BaseException, path: str, where: str) -> ConfigError:
    """What to say of a module that fails as it is imported."""
    text = str(error).partition("\n")[0]
    return ConfigError(
        f"{where}: {path} fails as it is imported: {_line(error, path)}:"
        f" {type(error).__name__}: {text}; correct it there"
    )


def _not_there(missing: str) -> str:
    """Where was looked for a module, and what to do."""
    parent, _, child = missing.rpartition(".")
    if not parent:
        return (
            f"there is no module {missing!r}; looked in the current folder {_here()} and among"
            f" the installed packages of {sys.prefix}; go to the folder that holds it, or install"
            " it (pip install -e)"
        )
    package = sys.modules[parent]
    found = f"{parent} is {place_of(package)}"
    if not hasattr(package, "__path__"):
        return f"{found}, one module without others in it; a name in it is {parent}:{child}"
    names = sorted(m.name for m in pkgutil.iter_modules(package.__path__))
    return f"{found}, and there is no {child!r} in it; it has {', '.join(names) or 'no modules'}"


def _line(error: BaseException, path: str) -> str:
    """File and line of an error that an import ended in: the last of the user's own."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}"
    spec = find_spec(path.partition(".")[0])
    folders = [Path(_here())]
    if spec is not None:
        folders += map(Path, spec.submodule_search_locations or [spec.origin or ""])
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        frame
        for frame in frames
        for folder in folders
        if Path(frame.filename).is_relative_to(folder)
        and "site-packages" not in Path(frame.filename).relative_to(folder).parts
        and frame.filename != __file__
    ]
    frame = (own or list(frames))[-1]
    return f"{frame.filename}, line {frame.lineno}"


def _here() -> str:
    """The current folder, as sys.path has it; nowhere, if it was removed."""
    try:
        return os.getcwd()  # noqa: PTH109
    except OSError:
        return os.devnull
