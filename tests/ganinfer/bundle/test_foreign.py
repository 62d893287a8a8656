"""Files that people take for bundles are told what they are; bundles travel as one file."""

import io
import shutil
import zipfile
from pathlib import Path

import pytest

from ganinfer.bundle.archive import Bundle
from ganinfer.errors import BundleError, Ending


def zipped(names: list[str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("g.onnx", b"\x08\x08:5", "an ONNX file.*gan export makes"),
        ("g.pt", zipped(["archive/data.pkl"]), "a checkpoint of torch.save; gan export"),
        ("g.pkl", b"\x80\x02}q\x00.", "a pickle"),
        ("g.safetensors", b"\x40\x00", "weights without their network"),
        ("g.engine", b"ftrt", "an engine alone"),
        ("g.gan", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("g.gan", b"<!DOCTYPE html><html>", "a web page"),
        ("g.zip", zipped(["digits.gan/manifest.sha256"]), "somebody has zipped; unzip it"),
        ("g.zip", zipped(["readme.txt"]), "closing sha256 does not match"),
        ("g.gan", b"nobody knows", "closing sha256 does not match"),
        ("g.gan", b"", "closing sha256 does not match"),
    ],
)
def test_what_is_no_bundle_is_called_what_it_is(name, content, told, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BundleError, match=told):
        Bundle(tmp_path / name)


@pytest.mark.parametrize(
    ("inside", "told"),
    [("checkpoints/", "the folder of a run.*gan export"), ("dataset.json", "a prepared dataset")],
)
def test_a_folder_that_is_no_bundle_is_called_what_it_is(
    tmp_path: Path, inside: str, told: str
) -> None:
    place = tmp_path / inside
    place.mkdir() if inside.endswith("/") else place.touch()
    with pytest.raises(BundleError, match=f"no bundle, but {told}"):
        Bundle(tmp_path)


def test_a_damaged_bundle_is_called_a_bundle(single_file: Path, tmp_path: Path) -> None:
    data = bytearray(single_file.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "x.gan").write_bytes(data)
    with pytest.raises(BundleError, match="closing sha256 does not match"):
        Bundle(tmp_path / "x.gan")


def test_a_bundle_is_packed_and_unpacked_without_a_loss(bundle: Path, tmp_path: Path, gan) -> None:
    folder = tmp_path / "as-folder.gan"
    shutil.copytree(bundle, folder)
    (folder / ".DS_Store").touch()
    one, again = tmp_path / "one.gan", tmp_path / "again.gan"
    assert gan("pack", folder, "-o", one).returncode == 0
    assert gan("unpack", one, "-o", again).returncode == 0
    assert one.is_file()
    assert not (again / ".DS_Store").exists()
    with Bundle(bundle) as before, Bundle(one) as packed, Bundle(again) as after:
        assert before.sha256 == packed.sha256 == after.sha256
        assert before.tree() == packed.tree() == after.tree()
    (tmp_path / "taken").write_text("mine")
    refused = gan("pack", folder, "-o", tmp_path / "taken")
    assert refused.returncode == Ending.DAMAGED
    assert "is not a bundle; choose another name" in " ".join(refused.stderr.split())
    assert (tmp_path / "taken").read_text() == "mine"
