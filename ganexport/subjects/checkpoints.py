"""Files of weights that other programs wrote, opened so that nothing in them runs."""

import json
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ganexport.subjects import mistaken
from ganexport.subjects.arrays import Array, DType
from ganexport.subjects.states import shown
from ganinfer.errors import ExportError, WeightsNotFound

_HEAD = 4096
_MOST = 1 << 24  # bytes of a pickle that are looked through


class _PassedOver:
    """Stands where a file wants an object that is neither a tensor nor a plain container.

    What it is made of and the state that it is given are dropped, so nothing can be reached
    through it, whatever the file says.
    """

    def __new__(cls, *_: object) -> "_PassedOver":
        return super().__new__(cls)

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


class _Mapping:
    """Makes a plain mapping, in the place of a kind of dict of some library's."""

    def __new__(cls, *_: object) -> "OrderedDict[str, object]":  # type: ignore[misc]
        return OrderedDict()


# What lies beside tensors in people's checkpoints. None of these classes is ever made: torch's
# unpickler is given stand-ins under their names. All other names it refuses.
_PASSED_OVER = (
    *("argparse.Namespace", "types.SimpleNamespace", "torch.torch_version.TorchVersion"),
    "numpy.ndarray",
    *(f"numpy.{core}.multiarray.scalar" for core in ("core", "_core")),
    *(
        f"{module}.{system}Path"
        for module in ("pathlib", "pathlib._local")
        for system in ("", "Posix", "Windows", "Pure", "PurePosix", "PureWindows")
    ),
    *(f"datetime.{name}" for name in ("datetime", "date", "timedelta", "timezone")),
    *(
        f"pytorch_lightning.callbacks.{name}"  # old versions keep their state by class
        for name in ("model_checkpoint.ModelCheckpoint", "early_stopping.EarlyStopping")
    ),
    *(f"omegaconf.{name}" for name in ("dictconfig.DictConfig", "listconfig.ListConfig")),
    *(f"omegaconf.base.{name}" for name in ("Metadata", "ContainerMetadata")),
    *(
        f"omegaconf.nodes.{kind}Node"
        for kind in ("Any", "String", "Integer", "Float", "Boolean", "Bytes", "Path", "Enum")
    ),
    "typing.Any",
    *(f"builtins.{name}" for name in ("int", "float", "str", "bool", "list", "dict")),
)
_MAPPINGS = (
    *("collections.defaultdict", "easydict.EasyDict", "dnnlib.util.EasyDict"),
    "pytorch_lightning.utilities.parsing.AttributeDict",
    *(
        f"{fabric}.utilities.data.AttributeDict"
        for fabric in ("lightning_fabric", "lightning.fabric")
    ),
)
_STAND_INS: list[Callable[..., object] | tuple[Callable[..., object], str]] = [
    *((_PassedOver, name) for name in _PASSED_OVER),
    *((_Mapping, name) for name in _MAPPINGS),
    (DType, "numpy.dtype"),
    *((Array, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
]

# No network is made of these; a file that names them wants to do something.
_HOSTILE = {
    *("builtins", "os", "posix", "nt", "sys", "subprocess", "shutil", "socket", "importlib"),
    *("runpy", "pty", "webbrowser", "ctypes", "operator", "pickle", "marshal"),
    *("eval", "exec", "getattr", "compile", "open", "apply", "__import__", "timeit", "asyncio"),
}


def open_checkpoint(path: Path) -> object:
    """What a file of weights holds: tensors in plain containers, whatever is beside them dropped.

    Args:
        path: .safetensors, or what torch.save wrote, known by its content and not by its name; or
            the `.index.json` of either in several files.

    Raises:
        ExportError: it is not there, broken, or something else, which is named; or it wants an
            object of another class than those above, which is named too.
    """
    try:
        if path.is_dir():
            raise ExportError(f"{path}: {mistaken.folder(path)}")
        if path.name.endswith(".index.json"):
            return _open_shards(path)
        with path.open("rb") as file:
            head = file.read(_HEAD)
        if _is_safetensors(head):
            return load_file(path)
        if (words := mistaken.what_it_is(path, head)) is not None:
            raise ExportError(f"{path}: {words}")
    except WeightsNotFound:
        raise  # of one of several files
    except FileNotFoundError:
        if path.with_name(f"{path.name}.index").exists():
            raise ExportError(
                f"{path}: a TensorFlow checkpoint; expected weights of torch"
            ) from None
        raise WeightsNotFound(f"{path}: no such file; expected weights") from None
    except SafetensorError as error:
        raise ExportError(f"{path}: {_damaged(error)}") from None
    except (OSError, ValueError) as error:
        raise ExportError(f"{path}: cannot be read ({_line(error)})") from None
    return _open_torch(path)


def _is_safetensors(head: bytes) -> bool:
    """Does a file begin as one: the length of its header in 8 bytes, and the header?"""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32


def _open_torch(path: Path) -> object:
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_STAND_INS):
            warnings.simplefilter("ignore")  # of old storages and other protocols
            with path.open("rb") as file:  # by its content: torch.load would go by the name
                return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever torch makes of a file that is broken or hostile
        raise ExportError(f"{path}: {_refusal(path, error)}") from None


def _refusal(path: Path, error: Exception) -> str:
    """Why torch does not load a file, and what to do."""
    text = str(error)
    match = re.search(r"GLOBAL (\S+)", text)
    if match is None and "Unsupported operand" in text and _pickled(path)[:2] != b"\x80\x02":
        return (
            "written with another pickle protocol than torch.save's own, which is not read"
            " safely; save it with torch.save(..., path), without pickle_protocol"
        )
    if match is None:
        return _damaged(error)
    name = shown(match[1])
    package = name.partition(".")[0]
    if package in _HOSTILE:
        return (
            f"refused: it names {name}, and weights need no such thing; nothing of it was run."
            " Open it nowhere else"
        )
    own = package == "__main__"
    where = "In the script that saved it" if own else f"Where {package} can be imported"
    opened = f'torch.load("{path.name}", map_location="cpu", weights_only=False)'
    if b"_parameters" in _pickled(path):
        return (
            f"a whole pickled network, of class {name}, and not its weights; nothing of it was"
            f" run. {where}, and if you trust who made it, save the"
            f" weights:{mistaken.resave(path, f'network = {opened}')}"
        )
    saved = f'torch.save(checkpoint["..."], "{path.stem}-weights.pt")  # the entry of the weights'
    return (
        f"holds an object of {name} beside its tensors; nothing of it was run. {where},"
        " and if you trust who made it, save the weights alone:"
        f"\n    import torch\n    checkpoint = {opened}\n    {saved}"
    )


def _pickled(path: Path) -> bytes:
    """The pickle in a file of torch.save, or its beginning; nothing, where it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(n for n in archive.namelist() if n.rpartition("/")[2] == "data.pkl")
            return archive.open(name).read(_MOST)
    except Exception:  # no zip, as torch.save's old files; or one that zipfile does not read
        with path.open("rb") as file:
            return file.read(_MOST)


def _open_shards(index: Path) -> dict[str, object]:
    """The tensors of several files, as the index beside them says."""
    expected = 'expected {"weight_map": {name of a tensor: file beside it, ...}}'
    try:
        files = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        by_file: dict[str, list[str]] = {}
        for name, file in files.items():
            if Path(file).name != file or file.endswith(".json"):
                raise ExportError(f"{index}: names {file!r}; {expected}")
            by_file.setdefault(file, []).append(name)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ExportError(f"{index}: {_line(error)}; {expected}") from None
    tensors: dict[str, object] = {}
    for file, names in by_file.items():
        shard = open_checkpoint(index.with_name(file))
        if not isinstance(shard, dict) or (lacking := [n for n in names if n not in shard]):
            found = f"no {lacking[0]!r}" if isinstance(shard, dict) else type(shard).__name__
            raise ExportError(f"{index}: {file} holds {found}; download the files again")
        tensors |= {name: shard[name] for name in names}
    return tensors


def _damaged(error: Exception) -> str:
    return f"cannot be read ({_line(error)}); download or copy it again"


def _line(error: Exception) -> str:
    text = str(error).rpartition("WeightsUnpickler error:")[2].strip()  # torch's advice left out
    return shown(text.splitlines()[0]) if text else type(error).__name__
