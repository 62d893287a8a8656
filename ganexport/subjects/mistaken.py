"""Files that are no weights of torch's, known by their names and first bytes and told in words."""

import io
import json
import pickletools
import re
import zipfile
from pathlib import Path

from ganexport.subjects.states import shown
from ganinfer.bundle.manifest import MANIFEST

_TORCH_LEGACY = (
    b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"  # the number that old files of torch.save begin with
)
_KERAS = (
    "weights of Keras; they do not load into a torch module by themselves. Port the network, copy"
    " each array (torch.from_numpy) into its parameter, and torch.save its state_dict()"
)
_TENSORFLOW = _KERAS.replace("of Keras", "of TensorFlow")
_PACKED = "an archive ({}); unpack it and give the file of weights in it"
_MAGIC = (
    (0, b"\x89HDF\r\n\x1a\n", f"an HDF5 file, {_KERAS}"),
    (4, b"TFL3", "a TensorFlow Lite graph; expected the weights it was made from"),
    (0, b"GGUF", "a GGUF file, of a language model as a rule; expected weights of a generator"),
    (0, b"GGML", "a GGML file, of a language model as a rule; expected weights of a generator"),
    (0, b"\x93NUMPY", "one NumPy array (.npy); expected a state dict, saved by torch.save"),
    (0, b"\x1f\x8b", _PACKED.format("gzip")),
    (0, b"BZh", _PACKED.format("bzip2")),
    (0, b"\xfd7zXZ\x00", _PACKED.format("xz")),
    (0, b"\x28\xb5\x2f\xfd", _PACKED.format("zstd")),
    (0, b"7z\xbc\xaf\x27\x1c", _PACKED.format("7z")),
    (0, b"Rar!", _PACKED.format("rar")),
    (257, b"ustar", _PACKED.format("tar")),
    (0, b"\x89PNG", "a PNG image; expected weights"),
    (0, b"\xff\xd8\xff", "a JPEG image; expected weights"),
    (0, b"%PDF", "a PDF; expected weights"),
)


def what_it_is(path: Path, head: bytes) -> str | None:
    """What a file is that does not hold weights of torch's, and what to do.

    Args:
        path: the file; its name tells, and a zip's table of contents is read.
        head: its first bytes, 512 at least where it has them.

    Returns:
        Words that go on from the file's name; None if it may be weights.
    """
    if not head:
        return "empty, 0 bytes; download or copy it again"
    for at, magic, words in _MAGIC:
        if head[at : at + len(magic)] == magic:
            return words
    if re.search(r"\.(index|meta|pb|data-\d+-of-\d+)$", path.name):
        return f"part of a TensorFlow checkpoint, {_TENSORFLOW}"
    if head.startswith(b"PK"):
        return _zip(path)
    if head.startswith(b"\x80") and _TORCH_LEGACY not in head[:32]:
        return _pickle(path)
    if path.suffix == ".onnx" or re.match(rb"\x08[\x01-\x20][\x12\x3a]", head):
        return "an ONNX graph; expected the weights of the torch network that it was made from"
    if _TORCH_LEGACY in head[:32]:
        return None
    return _text(head) or (
        f"nothing that torch.save or safetensors writes; it begins with {head[:8].hex(' ')}"
    )


def folder(path: Path) -> str:
    """The same, of a folder."""
    names = sorted(entry.name for entry in path.iterdir())
    if "saved_model.pb" in names:
        return f"a SavedModel, {_TENSORFLOW}"
    kinds = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".index.json")
    files = [name for name in names if name.endswith(kinds)]
    return f"a folder; give one file of weights{f': {files[:8]} lie in it' if files else ''}"


def resave(path: Path, opened: str, needs: str = "torch") -> str:
    """Three lines that save the weights of what a file holds, for the end of a message."""
    lines = (
        f"import {needs}",
        opened,
        f'torch.save(network.state_dict(), "{path.stem}-weights.pt")',
    )
    return "".join(f"\n    {line}" for line in lines)


def _zip(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            pickled = next((n for n in names if n.rpartition("/")[2] == "data.pkl"), None)
            start = archive.open(pickled).read(1 << 16) if pickled else b""
    except Exception:  # zipfile has many words for what is no zip
        return (
            f"damaged, or it ends too early: {path.stat().st_size:,} bytes; download or copy it"
            " again"
        )
    if any(name.endswith("/constants.pkl") or "/code/__torch__" in name for name in names):
        found = first_global(start) or "unknown"
        found = re.sub(r"^__torch__\.|___torch_mangle_\d+\.", "", found)
        opened = f'network = torch.jit.load("{path.name}", map_location="cpu")'
        return f"a TorchScript program, of class {found}; save its weights:{resave(path, opened)}"
    if pickled:
        return None
    if any(name.endswith("model.weights.h5") for name in names):
        return f"a .keras file, {_KERAS}"
    if MANIFEST in names:
        return "a bundle, which is exported already; expected the weights of a network"
    if all(name.endswith(".npy") for name in names):
        return (
            "NumPy arrays (.npz); save them as tensors:\n    import numpy, torch\n"
            f'    arrays = dict(numpy.load("{path.name}"))\n    torch.save({{name: torch.from_numpy'
            f'(array) for name, array in arrays.items()}}, "{path.stem}.pt")'
        )
    if any(n.endswith(("archive_format", "serialized_exported_program.json")) for n in names):
        opened = f'network = torch.export.load("{path.name}")'
        return f"a program of torch.export; save its weights:{resave(path, opened)}"
    return f"a zip of {len(names)} files, {names[:4]}; unpack it and give the file of weights"


def _pickle(path: Path) -> str:
    with path.open("rb") as file:
        found = first_global(file.read(1 << 16))
    opened = f'network = pickle.load(open("{path.name}", "rb"))  # or one of its entries'
    return (
        f"a plain pickle{f' (of {found})' if found else ''}, not a file of torch.save; nothing of"
        " it was run. Where its code can be imported, and if you trust who made it, save the"
        f" weights:{resave(path, opened, 'pickle, torch')}"
    )


def _text(head: bytes) -> str | None:
    try:
        text = io.TextIOWrapper(io.BytesIO(head), "utf-8").read(64).strip()
    except UnicodeDecodeError:
        return None
    if not all(c.isprintable() or c.isspace() for c in text):
        return None
    if text.startswith("version https://git-lfs"):
        return "a git-lfs pointer, in the place of the file; fetch that with: git lfs pull"
    if re.match(r"<(!doctype html|html|head|\?xml)", text, re.IGNORECASE):
        return (
            f"a web page, {text[:40]!r}, in the place of the file; download it again by the link of"
            " the file itself, logged in where that is asked for"
        )
    if text.startswith("model_checkpoint_path"):
        return f"the index of a TensorFlow checkpoint, {_TENSORFLOW}"
    kind = "JSON" if text.startswith(("{", "[")) else "text"
    return f"{kind}, {json.dumps(text[:40])}; expected weights, as .safetensors or by torch.save"


def first_global(pickled: bytes) -> str | None:
    """The first class or function that a pickle names; it is parsed, not loaded."""
    strings: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(pickled):
            if opcode.name == "GLOBAL":
                return shown(str(argument).replace(" ", "."))
            if opcode.name == "STACK_GLOBAL":
                return shown(".".join(strings[-2:]))
            if isinstance(argument, str):
                strings.append(argument)
    except Exception:  # whatever a broken pickle makes of its parser
        return None
    return None
