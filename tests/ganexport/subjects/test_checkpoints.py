"""Files that are no weights, and files that would do something: named, and nothing run."""

import io
import json
import os
import pickle
import runpy
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ganexport.subjects.checkpoints import open_checkpoint
from ganinfer.errors import ExportError


class G(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.layer(z)


class Settings:
    def __init__(self) -> None:
        self.lr = 1e-4


class Attributes(dict):
    pass


def torch_zip(pickled: bytes, tmp_path: Path) -> Path:
    """A file of torch.save's, of this pickle."""
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        archive.writestr("w/data.pkl", pickled)
        archive.writestr("w/version", "3\n")
        archive.writestr("w/byteorder", "little")
    return tmp_path / "w.pt"


def of_class(pickled: bytes, original: type, name: str) -> bytes:
    """The same pickle, of a class of some library's."""
    module, _, rest = name.rpartition(".")
    ours = f"c{original.__module__}\n{original.__name__}\n".encode()
    assert ours in pickled
    return pickled.replace(ours, f"c{module}\n{rest}\n".encode())


def refusal(path: Path) -> str:
    with pytest.raises(ExportError) as error:
        open_checkpoint(path)
    assert str(error.value).startswith(f"{path}: ")
    return str(error.value).removeprefix(f"{path}: ")


# Pickles that run `touch` on a file when they are loaded as pickles are.


class Runs:
    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call


def hostile(marker: Path) -> dict[str, object]:
    code = f"open({str(marker)!r}, 'w').close()"
    inner = io.BytesIO()
    torch.save(Runs(exec, code), inner)
    return {
        "system": Runs(os.system, f"touch {marker}"),
        "exec": Runs(exec, code),
        "eval": {"g": {"w": torch.ones(1), "x": Runs(eval, code)}},
        "import": Runs(runpy._run_code, code, {}),
        "bytes": Runs(torch.storage._load_from_bytes, inner.getvalue()),
        "pickled": Runs(pickle.loads, pickle.dumps(Runs(exec, code))),
    }


@pytest.mark.parametrize("way", ["zip", "legacy", "plain", "protocol 4", "named .safetensors"])
@pytest.mark.parametrize("trick", list(hostile(Path())))
def test_nothing_in_a_file_is_run(trick: str, way: str, tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / "w.pt"
    tree = hostile(marker)[trick]
    if way == "plain":
        path.write_bytes(pickle.dumps(tree))
    elif way == "named .safetensors":
        path = tmp_path / "w.safetensors"
        torch.save(tree, path)
    else:
        options = {"pickle_protocol": 4} if way == "protocol 4" else {}
        torch.save(tree, path, _use_new_zipfile_serialization=way != "legacy", **options)
    words = refusal(path)
    assert not marker.exists()
    assert "Traceback" not in words
    assert "weights_only=False" not in words or trick == "bytes"
    if way in ("zip", "legacy"):
        names = {
            "system": f"{os.name}.system",
            "import": "runpy._run_code",
            "pickled": "pickle.loads",
        }
        assert names.get(trick, trick) in words
    if way == "plain":
        pickle.loads(path.read_bytes())
    else:
        torch.load(io.BytesIO(path.read_bytes()), weights_only=False)
    assert marker.exists()  # it would have


def test_a_stand_in_keeps_nothing_of_what_a_file_gives_it(tmp_path: Path) -> None:
    class Smuggler:  # its state has a method of the file's choice, which loading would call
        def __reduce__(self) -> tuple[object, ...]:
            return Settings, (), {"__setstate__": torch.device, "lr": 3}

    smuggled = of_class(pickle.dumps(Smuggler(), 2), Settings, "argparse.Namespace")
    found = open_checkpoint(torch_zip(smuggled, tmp_path))
    assert vars(found) == {}
    assert type(found).__module__ == "ganexport.subjects.checkpoints"


@pytest.mark.parametrize(
    "name",
    [
        *("collections.defaultdict", "easydict.EasyDict", "dnnlib.util.EasyDict"),
        *("lightning_fabric.utilities.data.AttributeDict",),
        *("lightning.fabric.utilities.data.AttributeDict",),
    ],
)
def test_a_dict_of_some_librarys_is_a_dict(name: str, tmp_path: Path) -> None:
    theirs = Attributes(lr=1e-4, nested=Attributes(z=8))
    theirs.extra = 3
    found = open_checkpoint(
        torch_zip(of_class(pickle.dumps(theirs, 2), Attributes, name), tmp_path)
    )
    assert found == {"lr": 1e-4, "nested": {"z": 8}}
    assert type(found) is OrderedDict


@pytest.mark.parametrize(
    "name",
    [
        *("types.SimpleNamespace", "pathlib._local.PosixPath", "pathlib.WindowsPath"),
        *("torch.torch_version.TorchVersion", "builtins.list", "typing.Any"),
        *("omegaconf.dictconfig.DictConfig", "omegaconf.nodes.AnyNode"),
        "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    ],
)
def test_an_object_beside_tensors_is_not_made(name: str, tmp_path: Path) -> None:
    pickled = pickle.dumps({"args": Settings(), Settings: 3, "epoch": 3}, 2)
    found = open_checkpoint(torch_zip(of_class(pickled, Settings, name), tmp_path))
    assert found["epoch"] == 3
    assert vars(found["args"]) == {}


def test_scalars_of_numpy_1(tmp_path: Path) -> None:
    pickled = pickle.dumps({"fid": np.float64(3), "a": np.arange(3), "epoch": 3}, 2)
    older = pickled.replace(b"numpy._core.", b"numpy.core.")
    assert open_checkpoint(torch_zip(older, tmp_path))["epoch"] == 3


def test_what_was_allowed_is_so_only_while_a_file_is_opened(tmp_path: Path) -> None:
    torch.save({"x": np.float64(3)}, tmp_path / "w.pt")
    before = set(torch.serialization.get_safe_globals())
    open_checkpoint(tmp_path / "w.pt")
    assert set(torch.serialization.get_safe_globals()) == before
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "w.pt", weights_only=True)


@pytest.mark.parametrize(
    ("tree", "name"),
    [
        (G(), f"{__name__}.G"),
        ({"epoch": 3, "model": G()}, f"{__name__}.G"),
        (nn.DataParallel(G()), "torch.nn.parallel.data_parallel.DataParallel"),
        (nn.Sequential(nn.Linear(2, 2)), "torch.nn.modules.container.Sequential"),
    ],
    ids=["module", "nested", "DataParallel", "Sequential"],
)
@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_whole_network_is_named_by_its_class(tree, name, new, tmp_path: Path) -> None:
    path = tmp_path / "whole.pth"
    torch.save(tree, path, _use_new_zipfile_serialization=new)
    words = refusal(path)
    assert f"a whole pickled network, of class {name}, and not its weights" in words
    assert words.splitlines()[1:] == [
        "    import torch",
        '    network = torch.load("whole.pth", map_location="cpu", weights_only=False)',
        '    torch.save(network.state_dict(), "whole-weights.pt")',
    ]


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch.compile's own
def test_a_compiled_network_is_named_by_its_class(tmp_path: Path) -> None:
    torch.save(torch.compile(G()), tmp_path / "w.pt")
    assert "network, of class torch._dynamo.eval_frame.OptimizedModule" in refusal(
        tmp_path / "w.pt"
    )


def test_another_object_beside_tensors_is_named_by_its_class(tmp_path: Path) -> None:
    torch.save({"cfg": Settings(), "g": {"w": torch.ones(1)}}, tmp_path / "w.pt")
    words = refusal(tmp_path / "w.pt")
    assert words.startswith(f"holds an object of {__name__}.Settings beside its tensors; nothing")
    assert len(words.splitlines()) == 4
    script = of_class(pickle.dumps({"cfg": Settings()}, 2), Settings, "__main__.Settings")
    assert "run. In the script that saved it, and if" in refusal(torch_zip(script, tmp_path))


def test_the_lines_that_save_again_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = G()
    monkeypatch.chdir(tmp_path)
    torch.save(network, "whole.pth")
    Path("script.pt").write_bytes(scripted(network))
    Path("plain.pkl").write_bytes(pickle.dumps(network))
    np.savez("arrays.npz", **{n: v.numpy() for n, v in network.state_dict().items()})
    for given, made in (
        ("whole.pth", "whole-weights.pt"),
        ("script.pt", "script-weights.pt"),
        ("plain.pkl", "plain-weights.pt"),
        ("arrays.npz", "arrays.pt"),
    ):
        lines = refusal(Path(given)).splitlines()[1:]
        with warnings.catch_warnings(action="ignore"):
            exec("\n".join(line.strip() for line in lines), {})
        tree = open_checkpoint(Path(made))
        assert all(torch.equal(tree[n], v) for n, v in network.state_dict().items())


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, "")
    return file.getvalue()


def scripted(network: nn.Module) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):  # torch.jit is deprecated
        torch.jit.save(torch.jit.trace(network, torch.ones(1, 4)), file)
    return file.getvalue()


def torch_file() -> bytes:
    file = io.BytesIO()
    torch.save({"w": torch.ones(1000)}, file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("g.pt", b"", "empty, 0 bytes"),
        ("g.h5", b"\x89HDF\r\n\x1a\n" + bytes(99), "an HDF5 file, weights of Keras; they do not"),
        ("g.keras", zipped("config.json", "model.weights.h5"), "a .keras file, weights of Keras"),
        ("m.ckpt.index", b"\0\0\5", "part of a TensorFlow checkpoint, weights of TensorFlow"),
        ("m.ckpt.data-00000-of-00001", b"\1\2", "part of a TensorFlow checkpoint"),
        ("saved_model.pb", b"\x08\x01", "part of a TensorFlow checkpoint"),
        ("checkpoint", b'model_checkpoint_path: "m"', "the index of a TensorFlow checkpoint"),
        ("g.tflite", b"\x1c\0\0\0TFL3" + bytes(9), "a TensorFlow Lite graph"),
        ("g.gguf", b"GGUF\3\0\0\0", "a GGUF file"),
        ("g.pt", b"\x08\x09\x12\x07pytorch\x1a\x05", "an ONNX graph; expected the weights"),
        ("g.onnx", b"\x0a\xff\x12", "an ONNX graph"),
        ("g.pt", b"<!DOCTYPE html><html>", "a web page, '<!DOCTYPE html><html>', in the place"),
        ("g.pt", b"\n<html lang='en'>", "a web page"),
        ("g.pt", b"<?xml version='1.0'?><Error>", "a web page"),
        ("g.pt", b"version https://git-lfs.example/spec/v1\noid sha256:00\n", "a git-lfs pointer"),
        ("g.pt", b"Not found", 'text, "Not found"; expected weights'),
        ("g.pt", '{"error": "gäbe"}'.encode(), "JSON, "),
        ("g.pt", scripted(G()), f"a TorchScript program, of class {__name__}.G; save its"),
        ("g.zip", zipped("a.txt", "g.pth"), "a zip of 2 files, ['a.txt', 'g.pth']; unpack it"),
        ("x.gan", zipped("manifest.json", "model.onnx"), "a bundle, which is exported already"),
        ("g.pt2", zipped("g/archive_format", "g/data/x"), "a program of torch.export"),
        ("g.pt", torch_file()[:2000], "damaged, or it ends too early: 2,000 bytes"),
        ("g.tar.gz", b"\x1f\x8b\x08", "an archive (gzip); unpack it"),
        ("g.tar", bytes(257) + b"ustar\x0000", "an archive (tar); unpack it"),
        ("g.npy", b"\x93NUMPY\1\0", "one NumPy array"),
        ("g.png", b"\x89PNG\r\n\x1a\n", "a PNG image"),
        ("g.pt", bytes(99), "nothing that torch.save or safetensors writes; it begins with 00 00"),
        ("g.pt", b"\x80\x04\x95", "a plain pickle, not a file of torch.save"),
        ("g.safetensors", b"\x10\0\0\0\0\0\0\0{}", "cannot be read (Error"),
    ],
)
def test_a_file_of_another_kind_is_named(name, content, words, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert refusal(tmp_path / name).startswith(words)


@pytest.mark.parametrize("at", range(0, 1400, 100))
@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_a_damaged_file_gives_weights_or_words(at: int, new: bool, tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save({"g": {"w": torch.ones(9)}}, path, _use_new_zipfile_serialization=new)
    content = bytearray(path.read_bytes())
    content[at % len(content) : at % len(content) + 8] = b"\xff" * 8
    path.write_bytes(content)
    words = ""
    try:
        assert isinstance(open_checkpoint(path), dict)
    except ExportError as error:
        words = str(error)
    assert "\x1b" not in words
    assert "weights_only" not in words
    assert "protocol" not in words


def test_folders_and_missing_files(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.pt") == "no such file; expected weights"
    (tmp_path / "model.ckpt.index").write_bytes(b"")
    assert refusal(tmp_path / "model.ckpt").startswith("a TensorFlow checkpoint")
    (tmp_path / "g").mkdir()
    assert refusal(tmp_path / "g") == "a folder; give one file of weights"
    (tmp_path / "g/w.pth").write_bytes(b"")
    assert "['w.pth'] lie in it" in refusal(tmp_path / "g")
    (tmp_path / "g/saved_model.pb").write_bytes(b"")
    assert refusal(tmp_path / "g").startswith("a SavedModel, weights of TensorFlow")


def test_another_pickle_protocol_is_refused_in_words(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1)}, tmp_path / "w.pt", pickle_protocol=4)
    assert refusal(tmp_path / "w.pt").startswith("written with another pickle protocol")


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_weights_in_several_files(kind: str, tmp_path: Path) -> None:
    first, second = {"a.w": torch.ones(2), "a.b": torch.zeros(1)}, {"b.w": torch.ones(3)}
    save = save_file if kind == "safetensors" else torch.save
    save(first, tmp_path / f"model-1.{kind}")
    save(second, tmp_path / f"model-2.{kind}")
    index = tmp_path / f"model.{kind}.index.json"

    def write(names: object) -> None:
        index.write_text(json.dumps({"metadata": {}, "weight_map": names}))

    names = dict.fromkeys(first, f"model-1.{kind}") | {"b.w": f"model-2.{kind}"}
    write(names)
    found = open_checkpoint(index)
    assert found.keys() == first.keys() | second.keys()
    assert torch.equal(found["b.w"], second["b.w"])
    for wrong, words in (
        (names | {"c": f"model-2.{kind}"}, "holds no 'c'"),
        (names | {"c": f"../model-2.{kind}"}, "names '../model-2"),
        (names | {"c": index.name}, f"names '{index.name}'"),
        ([1], "expected {"),
        (names | {"c": 3}, "expected {"),
    ):
        write(wrong)
        assert words in refusal(index)
    write(names | {"c": f"model-3.{kind}"})
    with pytest.raises(ExportError, match="model-3.*no such file"):
        open_checkpoint(index)
