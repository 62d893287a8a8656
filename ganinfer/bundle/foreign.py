"""Files that people take for bundles: told what they are, and which command helps."""

import zipfile
from pathlib import Path

_EXPORT = "gan export makes a bundle of it, with proof: see docs/exporting.md"
_HEAD = 64  # bytes that tell a kind of file
_BY_SUFFIX = {
    ".onnx": "an ONNX file, of which nobody knows whether it is the generator that was trained;"
    f" take the checkpoint that it was made of: {_EXPORT}",
    ".safetensors": f"weights without their network; {_EXPORT}",
    **dict.fromkeys(
        (".engine", ".plan", ".trt"), "an engine alone; gan export --trt makes bundles"
    ),
    **dict.fromkeys((".h5", ".keras", ".tflite"), "of another framework; export it there to ONNX"),
}
_BY_HEAD = {
    b"version https://git-lfs": "what Git LFS has left in the file's place; run: git lfs pull",
    b"<!doctype html": "a web page: the download was answered by it; look at it in a browser",
    b"<html": "a web page: the download was answered by it; look at it in a browser",
    b"\x1f\x8b": "a gzip file; unpack it first",
    b"\x80": f"a pickle, as of torch.save; {_EXPORT}",
}


def foreign_kind(path: Path) -> str:
    """What a file is that is no bundle, and what to do; empty if nobody knows."""
    if zipfile.is_zipfile(path):
        return _zip_kind(path)
    with path.open("rb") as file:
        head = file.read(_HEAD).lower()
    found = [told for start, told in _BY_HEAD.items() if head.startswith(start)]
    return found[0] if found else _BY_SUFFIX.get(path.suffix.lower(), "")


def foreign_folder(path: Path) -> str:
    """What a folder is that is no bundle, and what to do; empty if nobody knows."""
    if (path / "checkpoints").is_dir():
        return f"the folder of a run; make one of it: gan export {path} -o x.gan"
    if (path / "dataset.json").is_file():
        return "a prepared dataset; train on it: gan train"
    return ""


def _zip_kind(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names, own = archive.namelist(), archive.comment.startswith(b"sha256:")
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return ""
    if own:  # it was a bundle, before something happened to it
        return ""
    if any(name.endswith("data.pkl") for name in names):
        return f"a checkpoint of torch.save; {_EXPORT}"
    if any(name.rpartition("/")[2] == "manifest.sha256" for name in names):
        return "a bundle's folder that somebody has zipped; unzip it and open the folder"
    return ""
