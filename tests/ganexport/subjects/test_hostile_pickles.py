"""Pickles that want more than to be read: none runs anything, each is refused in words.

What a file would do if it were unpickled leaves a marker in the current folder.
"""

import contextlib
import io
import os
import pickle
import random
import resource
import struct
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from published import file_of, network, register

from ganexport.cli.gan import main
from ganexport.subjects.weights import read_state
from ganinfer.errors import ExportError
from gantrain.pickle_machine import NUM_OPERATIONS
from gantrain.pickle_values import OLD_TORCH

COMMAND = "touch ran"
SECONDS, KILOBYTES = 10, 500_000  # what a refusal may take


@pytest.fixture(autouse=True)
def _within_bounds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    register(monkeypatch)
    monkeypatch.chdir(tmp_path)
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert not Path("ran").exists()
    assert time.monotonic() - began < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < KILOBYTES


def refused(data: bytes) -> str:
    Path("x.pkl").write_bytes(data)
    with pytest.raises(ExportError) as caught:
        read_state(Path("x.pkl"))
    message = str(caught.value)
    assert message.startswith("x.pkl: ")
    assert message.isprintable()
    assert message.isascii()
    assert len(message) < 400
    return message


# The format's operations, written out.


def text(value: str) -> bytes:
    coded = value.encode()
    return b"X" + struct.pack("<I", len(coded)) + coded


def raw(value: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(value)) + value


def number(value: int) -> bytes:
    coded = value.to_bytes(16, "little", signed=True)
    return b"\x8a" + bytes([len(coded)]) + coded


def named(module: str, name: str) -> bytes:
    return text(module) + text(name) + b"\x93"


def call(module: str, name: str, *arguments: bytes) -> bytes:
    return named(module, name) + b"(" + b"".join(arguments) + b"tR"


def whole(value: bytes) -> bytes:
    """A file that is {"G_ema": value}."""
    return b"\x80\x04}" + text("G_ema") + value + b"s."


def items(**values: bytes) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in values.items()) + b"u"


def module(parameters: bytes = b"}", buffers: bytes = b"}", modules: bytes = b"}") -> bytes:
    parts = items(_parameters=parameters, _buffers=buffers, _modules=modules)
    meta = items(type=text("class"), class_name=text("Generator"), state=parts)
    return call("torch_utils.persistence", "_reconstruct_persistent_obj", meta)


def storage(count: int, data: bytes, *, told: int | None = None, kind: str = "Float") -> bytes:
    """The bytes of one, as the first torch.save wrote it."""
    persistent = b"(" + text("storage") + named("torch", f"{kind}Storage") + text("0")
    persistent += text("cpu") + number(count) + b"NtQ"
    system = items(little_endian=b"\x88")
    return b"".join(
        [
            *(OLD_TORCH, b"\x80\x04" + number(1001) + b".", b"\x80\x04" + system + b"."),
            *(b"\x80\x04" + persistent + b".", b"\x80\x04](" + text("0") + b"e."),
            struct.pack("<q", count if told is None else told) + data,
        ]
    )


def tensor(data: bytes, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0) -> bytes:
    sizes, steps = (b"(" + b"".join(map(number, axes)) + b"t" for axes in (shape, strides))
    loaded = call("torch.storage", "_load_from_bytes", raw(data))
    empty = call("collections", "OrderedDict")
    return call(
        "torch._utils", "_rebuild_tensor_v2", loaded, number(offset), sizes, steps, b"\x89", empty
    )


SHELL = [text(COMMAND)]
REDUCED = {
    "os.system": call("os", "system", *SHELL),
    "posix.system": call("posix", "system", *SHELL),
    "subprocess.check_output": call("subprocess", "check_output", *SHELL, b"\x88"),
    "builtins.eval": call("builtins", "eval", text("open('ran', 'w')")),
    "builtins.exec": call("builtins", "exec", text("open('ran', 'w')")),
    "builtins.getattr": call("builtins", "getattr", named("os", "path"), text("os")),
    "builtins.__import__": call("builtins", "__import__", text("os")),
    "builtins.open": call("builtins", "open", text("ran"), text("w")),
    "operator.attrgetter": call("operator", "attrgetter", text("system")),
    "functools.partial": call("functools", "partial", named("os", "system"), *SHELL),
    "copyreg._reconstructor": call("copyreg", "_reconstructor", named("os", "system")),
    "importlib.import_module": call("importlib", "import_module", text("antigravity")),
    "runpy.run_path": call("runpy", "run_path", text("x.py")),
    "pickle.loads": call("pickle", "loads", raw(pickle.dumps(0))),
    "torch.load": call("torch", "load", text("x.pkl")),
    "torch.hub.load": call("torch.hub", "load", text("a/b"), text("c")),
    "numpy.load": call("numpy", "load", text("x.npy"), b"N", b"\x88"),
    "torch.nn.modules.linear.Linear": call("torch.nn.modules.linear", "Linear", number(2**62)),
    # Dotted names, which protocol 4 follows from what is allowed to what is not.
    "os.path.join": call("os", "path.join", *SHELL),
    "collections.OrderedDict.__init__.__globals__": call(
        "collections", "OrderedDict.__init__.__globals__"
    ),
    "torch.storage.io.open": call("torch.storage", "io.open", text("ran"), text("w")),
    "torch._utils.torch.os.system": call("torch._utils", "torch.os.system", *SHELL),
    "dnnlib.util.os.system": call("dnnlib.util", "os.system", *SHELL),
}


@pytest.mark.parametrize("name", REDUCED)
def test_a_global_that_no_network_needs_is_refused_by_name(name: str) -> None:
    message = refused(whole(REDUCED[name]))
    assert f"names {name.partition('.')[0]}." in message
    assert name in message or name in ("functools.partial", "builtins.getattr")
    assert "nothing in the file was run; if you trust who made it, save torch.save(" in message


def test_these_files_would_run_if_they_were_unpickled() -> None:
    pickle.loads(whole(REDUCED["os.system"]))
    assert Path("ran").exists()
    Path("ran").unlink()


class Runs:
    def __reduce__(self) -> tuple:
        return os.system, (COMMAND,)


@pytest.mark.parametrize("protocol", range(6))
def test_a_reduce_trick_of_any_protocol_is_refused(protocol: int) -> None:
    assert "names posix.system" in refused(pickle.dumps(Runs(), protocol=protocol))


def test_a_trick_beside_a_whole_network_is_refused() -> None:
    good = {"G_ema": network({"w_avg": torch.zeros(2)}, {}), "G": Runs()}
    assert "names posix.system" in refused(pickle.dumps(good, protocol=4))


OPERATIONS = {
    "GLOBAL": (b"cos\nsystem\n" + text(COMMAND) + b"\x85R", "names os.system"),
    "INST": (b"(" + text(COMMAND) + b"ios\nsystem\n", "names os.system"),
    "INST of a known class": (b"(icollections\nOrderedDict\n", "the operation INST"),
    "OBJ": (b"(cos\nsystem\n" + text(COMMAND) + b"o", "names os.system"),
    "OBJ of a known class": (b"(ccollections\nOrderedDict\no", "the operation OBJ"),
    "EXT1": (b"\x82\x01", "the operation EXT1"),
    "EXT2": (b"\x83\x01\x01", "the operation EXT2"),
    "EXT4": (b"\x84\x01\x01\x01\x01", "the operation EXT4"),
    "PERSID": (b"Pabc\n", "the operation PERSID"),
    "BINPERSID": (b")Q", "a persistent id"),
    "READONLY_BUFFER": (b"]\x98", "the operation READONLY_BUFFER"),
    "an array of protocol 5": (
        call("numpy._core.numeric", "_frombuffer", raw(b"1234"), b"N", number(10**9), text("C")),
        "an array without shape, dtype and numbers",
    ),
    "NEXT_BUFFER": (b"\x97", "the operation NEXT_BUFFER"),
    "NEWOBJ_EX": (named("dnnlib.util", "EasyDict") + b")}\x92", "the operation NEWOBJ_EX"),
    "NEWOBJ": (named("numpy", "ndarray") + b")\x81", "a call of numpy.ndarray"),
    "NEWOBJ with values": (
        named("dnnlib.util", "EasyDict") + b"}\x85\x81",
        "dnnlib.util.EasyDict of 1 values",
    ),
    "LONG4": (b"\x8b" + struct.pack("<i", 4) + bytes(4), "the operation LONG4"),
    "DUP": (b"]2", "the operation DUP"),
    "BUILD of EasyDict": (
        named("dnnlib.util", "EasyDict") + b")\x81" + items(__setstate__=b"N") + b"b",
        "a dict with attributes",
    ),
    "BUILD of a global": (named("dnnlib.util", "EasyDict") + b"}b", "finds no such value"),
    "BUILD of a module with nothing": (module() + b"}b", "finds no such value"),
    "BUILD of a dtype with a dict": (
        call("numpy", "dtype", text("f8"), b"\x89", b"\x88") + items(code=b"N") + b"b",
        "not little-endian",
    ),
    "BUILD of a class": (
        named("collections", "OrderedDict") + b"N" + items(update=b"N") + b"\x86b",
        "finds no such value",
    ),
    "BUILD of a module": (module() + items(forward=b"N") + b"b", "finds no such value"),
    "REDUCE of text": (text("os.system") + text(COMMAND) + b"\x85R", "finds no such value"),
    "REDUCE of a class": (named("numpy", "ndarray") + b")R", "a call of numpy.ndarray"),
    "REDUCE with a list": (named("builtins", "set") + b"]R", "finds no such value"),
    "too many values": (call("collections", "OrderedDict", b"N"), "OrderedDict of 1 values"),
    "no mark": (b"t", "finds no mark"),
    "nothing to pop": (b"000", "finds no such value"),
    "a mark as a value": (b"(q\x00", "finds no such value"),
    "no such memo": (b"h\x07", "a reference to what is not there"),
    "an unhashable key": (b"}]Ns", "a key that is a list"),
    "a key without a value": (b"}(Nu", "a key without a value"),
    "an odd dtype": (call("numpy", "dtype", text("O8"), b"\x89", b"\x88"), "no number's"),
    "a big-endian dtype": (
        call("numpy", "dtype", text("f8"), b"\x89", b"\x88") + number(3) + text(">") + b"\x86b",
        "not little-endian",
    ),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_that_no_network_needs_is_refused(name: str) -> None:
    operations, message = OPERATIONS[name]
    assert message in refused(whole(operations))


def test_names_cannot_paint_the_terminal() -> None:
    assert r"names os.\x1b[2Jsystem\n[red]" in refused(whole(call("os", "\x1b[2Jsystem\n[red]")))
    assert r"names os.\ud800" in refused(
        b"\x80\x04" + text("os") + b"X\x03\0\0\0\xed\xa0\x80" + b"\x93."
    )
    assert len(refused(whole(call("o" * 100_000, "system")))) < 400


def test_a_tensorflow_pickle_is_refused_in_words() -> None:
    message = refused(b"\x80\x03cdnnlib.tflib.network\nNetwork\nq\x00)\x81q\x01.")
    assert "original StyleGAN or StyleGAN2, for TensorFlow; convert it by legacy.py" in message


# In the bytes of tensors.


def zip_bomb() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(50_000_000))
        archive.writestr("archive/data.pkl", pickle.dumps(Runs()))
    return file.getvalue()


def saved(value: object) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


NESTED: dict[str, tuple[Callable[[], bytes], str]] = {
    "a pickle": (lambda: pickle.dumps(Runs()), "tensors in another format"),
    "a zip bomb": (zip_bomb, "tensors in another format"),
    "a pickle after torch's mark": (lambda: OLD_TORCH + pickle.dumps(Runs()), "posix.system"),
    "an object that torch saved": (lambda: saved(Runs()), "posix.system"),
    "a state dict that torch saved": (lambda: saved({"a": torch.zeros(1)}), "_rebuild_tensor_v2"),
    "bytes that are loaded again": (
        lambda: OLD_TORCH + whole(call("torch.storage", "_load_from_bytes", raw(b""))),
        "names torch.storage._load_from_bytes",
    ),
    "a storage of 4 TB": (lambda: storage(10**12, b"1234"), "1,000,000,000,000 numbers in"),
    "a storage of less than nothing": (lambda: storage(-1, b"1234"), "a storage of -1 numbers"),
    "a storage of two sizes": (lambda: storage(10**12, b"1234", told=1), "declares two sizes"),
    "a storage of another kind": (lambda: storage(1, b"1234", kind="Quantized"), "torch.Quantized"),
}


@pytest.mark.parametrize("name", NESTED)
def test_bytes_of_tensors_are_read_as_carefully(name: str) -> None:
    make, message = NESTED[name]
    parameters = items(weight=tensor(make(), (1,), (1,)))
    assert message in refused(whole(module(parameters)))


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((10**9,), (0,), 0),
        ((2**39, 2**39, 2**39), (0, 0, 0), 0),
        ((5,), (1,), 0),
        ((4,), (1,), 1),
        ((4,), (-1,), 3),
        ((4,), (1, 1), 0),
        ((1,) * 60, (1,) * 60, 0),
        ((2**39, 0, 2**39), (1, 1, 1), 0),
    ],
)
def test_a_tensor_lies_within_its_storage(
    shape: tuple[int, ...], strides: tuple[int, ...], offset: int
) -> None:
    parameters = items(weight=tensor(storage(4, bytes(16)), shape, strides, offset))
    assert "a tensor" in refused(whole(module(parameters)))


# Bombs.


def nested(opening: bytes, closing: bytes, depth: int = 150_000) -> bytes:
    return opening * depth + b"N" + closing * depth


def laughs() -> bytes:
    """Modules whose two parts are the same module, 25 times over."""
    deep = module() + b"r\x00\x00\x00\x00"
    for level in range(25):
        get = b"j" + struct.pack("<I", level)
        deep += b"0" + module(modules=items(a=get, b=get)) + b"r" + struct.pack("<I", level + 1)
    return deep


def itself() -> bytes:
    """A module within itself: its parts are kept before they are filled."""
    return module(modules=b"}q\x05") + b"q\x06" + b"0h\x05" + text("a") + b"h\x06s0h\x06"


def same_bytes_often(times: int = 100_000) -> bytes:
    double = call("numpy", "dtype", text("f8"), b"\x89", b"\x88") + b"q\x01"
    again = named("numpy.core.multiarray", "scalar") + b"h\x01h\x02\x86R"
    return double + b"0" + raw(bytes(8 * 10**6)) + b"q\x02" + again * times


def same_list_often(times: int = 100_000) -> bytes:
    filled = b"](" + b"K\x01" * 100_000 + b"eq\x01"
    return filled + (named("builtins", "set") + b"h\x01\x85R") * times


def array(shape: int) -> bytes:
    made = call("numpy.core.multiarray", "_reconstruct", named("numpy", "ndarray"), b")", raw(b"b"))
    dtype = call("numpy", "dtype", text("f8"), b"\x89", b"\x88")
    return made + b"(" + number(1) + number(shape) + b"\x85" + dtype + b"\x89" + raw(b"") + b"tb"


def large_views() -> bytes:
    """A hundred tensors, each all of the file's one storage."""
    first = tensor(storage(250_000, bytes(10**6)), (250_000,), (1,))
    views = {f"w{n}": b"h\x01" for n in range(100)}
    return first + b"q\x010" + module(items(**views))


BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "tuples in tuples": (lambda: nested(b"", b"\x85"), "G_ema is a tuple"),
    "lists in lists": (lambda: nested(b"]", b"a"), "G_ema is a list"),
    "dicts in dicts": (lambda: nested(b"}K\x01", b"s"), "G_ema is a dict"),
    "a deep tuple as a key": (lambda: b"}" + nested(b"", b"\x85") + b"Ns", "key that is a tuple"),
    "a deep tuple as a dtype": (
        lambda: call("numpy", "dtype", nested(b"", b"\x85")),
        "no number's",
    ),
    "a chain of modules": (lambda: chain(40), "too deep"),
    "many operations": (lambda: b"N0" * NUM_OPERATIONS, "more than 500,000 operations"),
    "memos that grow": (lambda: b"](" + b"}\x94" * NUM_OPERATIONS + b"e", "more than 500,000"),
    "modules that are the same": (laughs, "lies within itself, or twice"),
    "a module within itself": (itself, "lies within itself, or twice"),
    "the same bytes often": (same_bytes_often, "more than 500,000 operations"),
    "the same list often": (same_list_often, "more than 500,000 operations"),
    "an array of 10^9 numbers": (lambda: array(10**9), "an array of 0 numbers and another"),
    "large views": (large_views, "its tensors are larger than the file"),
    "keys that collide": (
        lambda: b"}(" + b"".join(number(k * (2**61 - 1)) + b"N" for k in range(1, 9)) + b"u",
        "a huge number",
    ),
    "bytes that are not there": (lambda: b"\x8e" + struct.pack("<Q", 2**62), "no whole pickle"),
    "text that is not there": (lambda: b"\x8d" + struct.pack("<Q", 2**63), "no whole pickle"),
    "a frame that is not there": (lambda: b"\x95" + struct.pack("<Q", 2**63), "G_ema is a No"),
}


def chain(depth: int) -> bytes:
    made = module()
    for _ in range(depth):
        made = module(modules=items(a=made))
    return made


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_cost_little(name: str) -> None:
    make, message = BOMBS[name]
    value = make()
    if name == "a frame that is not there":
        value += b"N"
    assert message in refused(whole(value))


def test_a_number_of_a_large_storage_takes_no_more_than_its_place() -> None:
    first = tensor(storage(250_000, bytes(10**6)), (1,), (1,), 249_999)
    views = {f"w{n}": b"h\x01" for n in range(3000)}
    Path("x.pkl").write_bytes(whole(first + b"q\x010" + module(items(**views))))
    assert len(read_state(Path("x.pkl"))) == 3000


def test_a_sparse_file_of_terabytes_is_not_read() -> None:
    with Path("x.pkl").open("wb") as file:
        file.write(b"\x80\x04\x8e" + struct.pack("<Q", 2**40))
        file.truncate(2**40)
    with pytest.raises(ExportError, match=r"1,099,511,627,776 bytes; nothing in it was run"):
        read_state(Path("x.pkl"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no whole pickle"),
        (b"not a pickle at all", "no whole pickle (at position 0, opcode b'n' unknown)"),
        (b"\x80\x04.", "finds no such value"),
        (pickle.dumps([1]), "G_ema is a list; expected a network"),
        (pickle.dumps({"a": 1, "b": 2}), "no 'G_ema' in it; found 'a', 'b'"),
        (pickle.dumps({"G_ema": {"w": 1}}), "G_ema is a dict; expected a network"),
        (whole(module(buffers=b"N")), "'Generator' has no _buffers by name"),
        (whole(module(modules=items(a=text("os")))), "a part 'a.' that is no module"),
        (whole(module(modules=items(**{"a" * 99: module()}))), "has no _modules by name"),
    ],
)
def test_what_is_no_network_is_refused(data: bytes, message: str) -> None:
    assert message in refused(data)


def test_a_file_may_end_anywhere_or_hold_anything() -> None:
    """It is read, or refused; nothing else is raised."""
    state = {"w_avg": torch.arange(3.0), "f.weight": torch.ones(2, 2)}
    data = file_of(network(state, {"f": {"gain": 0.5}}))
    rng = random.Random(0)
    for n in range(600):
        broken = bytearray(data)
        if n < 100:
            broken = broken[: rng.randrange(len(broken))]
        for _ in range(rng.choice([0, 1, 1, 2, 8]) if n >= 100 else 0):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        Path("x.pkl").write_bytes(broken)
        with contextlib.suppress(ExportError):
            read_state(Path("x.pkl"))


def test_the_command_ends_in_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("x.pkl").write_bytes(whole(REDUCED["os.system"]))
    arguments = ["gan", "export", "--from", "stylegan2", "--weights", "x.pkl", "-o", "x.gan"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert "error: x.pkl: names os.system, which no StyleGAN needs" in error
    assert "Traceback" not in error
