import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from ganinfer.bundle import MANIFEST, Bundle, _digest_line, write_bundle, write_tree
from ganinfer.errors import BundleError
from ganinfer.files import sha256_bytes


@pytest.fixture
def folder(bundle: Path, tmp_path: Path) -> Path:
    """A bundle of one's own, as a directory."""
    return Path(shutil.copytree(bundle, tmp_path / "copy.gan"))


@pytest.fixture
def archive(bundle: Path, tmp_path: Path) -> Path:
    """The same bundle as one file."""
    with Bundle(bundle) as opened:
        files = {name: opened.read(name) for name in opened.manifest.files}
        write_bundle(tmp_path / "file.gan", opened.manifest, files, single_file=True)
    return tmp_path / "file.gan"


def rewrite_manifest(folder: Path, change: Callable[[dict], None]) -> None:
    """Change the manifest and sign it again, as an attacker would."""
    manifest = json.loads((folder / MANIFEST).read_text())
    change(manifest)
    data = json.dumps(manifest).encode()
    (folder / MANIFEST).write_bytes(data)
    (folder / "manifest.sha256").write_bytes(_digest_line(data))


def declare(folder: Path, name: str, data: bytes) -> Callable[[dict], None]:
    def change(manifest: dict) -> None:
        manifest["files"][name] = {"sha256": sha256_bytes(data), "size": len(data)}

    return change


def test_both_forms_hold_the_same(folder: Path, archive: Path) -> None:
    with Bundle(folder) as a, Bundle(archive) as b:
        assert a.manifest == b.manifest
        assert all(a.read(name) == b.read(name) for name in a.manifest.files)


def test_the_same_bundle_is_the_same_file(archive: Path, folder: Path, tmp_path: Path) -> None:
    with Bundle(folder) as opened:
        files = {name: opened.read(name) for name in opened.manifest.files}
        write_bundle(tmp_path / "again.gan", opened.manifest, files, single_file=True)
    assert (tmp_path / "again.gan").read_bytes() == archive.read_bytes()


def test_the_manifest_verifies_with_sha256sum(folder: Path) -> None:
    line = (folder / "manifest.sha256").read_text()
    assert line == f"{sha256_bytes((folder / MANIFEST).read_bytes())}  manifest.json\n"


def test_what_a_killed_writer_left_behind_is_cleared(folder: Path) -> None:
    left, recent = (folder.with_name(f".{folder.name}.{digit * 32}") for digit in "ab")
    for place in (left, recent):
        place.mkdir()
        (place / "manifest.json").write_text("{")
    os.utime(left, (0, 0))
    with Bundle(folder) as opened:
        write_tree(folder, opened.tree(), single_file=False)
    assert not left.exists()
    assert recent.exists()


def test_any_flipped_byte_in_a_directory_is_noticed(folder: Path) -> None:
    rng = np.random.default_rng(0)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for n in range(300):
        path = files[n % len(files)]
        original = path.read_bytes()
        damaged = bytearray(original)
        damaged[rng.integers(len(damaged))] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        with pytest.raises(BundleError):
            Bundle(folder)
        path.write_bytes(original)
    Bundle(folder).close()


def test_any_flipped_byte_in_a_file_is_noticed(archive: Path) -> None:
    rng = np.random.default_rng(1)
    original = archive.read_bytes()
    # Half of them where the zip keeps its tables.
    for n in range(300):
        damaged = bytearray(original)
        low = len(damaged) - 2000 if n % 2 else 0
        damaged[rng.integers(low, len(damaged))] ^= int(rng.integers(1, 256))
        archive.write_bytes(damaged)
        with pytest.raises(BundleError):
            Bundle(archive)
    archive.write_bytes(original)
    Bundle(archive).close()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_named(folder: Path, archive: Path, share: float) -> None:
    archive.write_bytes(archive.read_bytes()[: int(share * archive.stat().st_size)])
    with pytest.raises(BundleError, match="file.gan"):
        Bundle(archive)
    path = folder / "onnx" / "fp32.onnx"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(BundleError, match=r"onnx/fp32.onnx: found \d+ bytes, expected \d+ bytes"):
        Bundle(folder)


def test_an_extra_file_is_named(folder: Path) -> None:
    (folder / "onnx" / "extra.bin").write_bytes(b"x")
    with pytest.raises(BundleError, match="onnx/extra.bin is not in the manifest"):
        Bundle(folder)


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "golden" / "images.npy").unlink()
    with pytest.raises(BundleError, match="golden/images.npy is missing"):
        Bundle(folder)


def test_a_link_is_refused(folder: Path) -> None:
    path = folder / "preview.png"
    path.rename(folder.parent / "elsewhere.png")
    path.symlink_to(folder.parent / "elsewhere.png")
    with pytest.raises(BundleError, match="preview.png is a link"):
        Bundle(folder)


def test_a_newer_format_version_asks_for_an_upgrade(folder: Path) -> None:
    rewrite_manifest(folder, lambda manifest: manifest.update(format_version=2))
    with pytest.raises(BundleError, match=r"format_version 2, this ganinfer reads 1; upgrade"):
        Bundle(folder)


@pytest.mark.parametrize(
    "name", ["../outside.onnx", "/etc/passwd", "a/../../b", "onnx\\x", "./x", ""]
)
def test_a_path_out_of_the_bundle_is_refused(folder: Path, name: str) -> None:
    rewrite_manifest(folder, declare(folder, name, b""))
    with pytest.raises(BundleError, match="missing|file name"):
        Bundle(folder)


@pytest.mark.parametrize("name", ["../outside.onnx", "/etc/passwd", "a/../../b"])
def test_a_zip_member_out_of_the_bundle_is_refused(archive: Path, name: str) -> None:
    from ganinfer.bundle import _write_zip

    with zipfile.ZipFile(archive) as opened:
        tree = {member: opened.read(member) for member in opened.namelist()}
    archive.unlink()
    _write_zip(archive, {**tree, name: b"x"})
    with pytest.raises(BundleError, match="file name"):
        Bundle(archive)


def test_a_graph_whose_path_is_undeclared_is_refused(folder: Path) -> None:
    def change(manifest: dict) -> None:
        manifest["graphs"][0]["path"] = "../../secret.onnx"

    rewrite_manifest(folder, change)
    with pytest.raises(BundleError, match="secret.onnx is missing"):
        Bundle(folder)


def test_an_unknown_field_is_refused(folder: Path) -> None:
    rewrite_manifest(folder, lambda manifest: manifest.update(surprise=1))
    with pytest.raises(BundleError, match="surprise"):
        Bundle(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, '{"format_version": 1}', "null"])
def test_nonsense_for_a_manifest_is_refused(folder: Path, text: str) -> None:
    (folder / MANIFEST).write_text(text)
    (folder / "manifest.sha256").write_bytes(_digest_line(text.encode()))
    with pytest.raises(BundleError, match=MANIFEST):
        Bundle(folder)


def test_weights_outside_the_graph_are_refused(folder: Path) -> None:
    path = folder / "onnx" / "fp32.onnx"
    model = onnx.load(path)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    data = model.SerializeToString()
    path.write_bytes(data)
    rewrite_manifest(folder, declare(folder, "onnx/fp32.onnx", data))
    with Bundle(folder) as opened, pytest.raises(BundleError, match="keeps weights outside"):
        opened.read_graph("fp32")


def test_pickled_golden_images_are_refused(folder: Path) -> None:
    from ganinfer import Sampler

    np.save(folder / "golden" / "images.npy", np.array([{"a": 1}], object), allow_pickle=True)
    data = (folder / "golden" / "images.npy").read_bytes()
    rewrite_manifest(folder, declare(folder, "golden/images.npy", data))
    with pytest.raises(BundleError, match="golden/images.npy"):
        Sampler(folder)


@pytest.mark.parametrize(
    "data",
    [
        b"PK\x05\x06" + b"\0" * 18,
        b"\x93NUMPY\x01\x00\x76\x00{'descr': '|u1', 'fortran_order': False, 'shape': (10**12,)}",
        b"",
        b"\x93NUMPY\x01\x00\x10\x00((((((((((((((((",
    ],
)
def test_a_golden_file_that_is_not_the_expected_array_is_never_parsed(folder, data) -> None:
    from ganinfer import Sampler

    (folder / "golden" / "images.npy").write_bytes(data)
    rewrite_manifest(folder, declare(folder, "golden/images.npy", data))
    with pytest.raises(BundleError, match="golden/images.npy: not an .npy file of uint8"):
        Sampler(folder)


def test_an_unknown_precision_is_refused(folder: Path) -> None:
    rewrite_manifest(folder, lambda manifest: manifest["graphs"][0].update(precision="fp4"))
    with pytest.raises(BundleError, match=r"graphs.0.precision: found 'fp4'"):
        Bundle(folder)


def test_a_manifest_that_does_not_fit_its_graph_is_an_error_in_words(folder: Path) -> None:
    from ganinfer import Sampler
    from ganinfer.errors import BackendUnavailable

    rewrite_manifest(folder, lambda manifest: manifest["model"].update(z_dim=7))
    with pytest.raises(BackendUnavailable, match=r"(onnxruntime|openvino) failed on cpu"):
        Sampler(folder)


def test_a_link_to_a_bundle_stays_a_link(folder: Path) -> None:
    link = folder.parent / "latest.gan"
    link.symlink_to(folder, target_is_directory=True)
    with Bundle(folder) as opened:
        files = {name: opened.read(name) for name in opened.manifest.files}
        write_bundle(link, opened.manifest, files)
    assert link.is_symlink()
    Bundle(link).close()
    assert sorted(os.listdir(folder.parent)) == ["copy.gan", "latest.gan"]


@pytest.mark.parametrize("name", ["manifest.json", "dataset.json"])
def test_a_folder_with_a_manifest_of_another_kind_is_left_alone(bundle, tmp_path, name) -> None:
    app = tmp_path / "app"
    app.mkdir()
    (app / name).write_text("{}")
    with Bundle(bundle) as opened, pytest.raises(BundleError, match="not a bundle"):
        write_bundle(app, opened.manifest, {})
    assert (app / name).exists()


def test_a_missing_bundle_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="gan export"):
        Bundle(tmp_path / "none.gan")


def test_a_folder_or_file_of_another_kind_is_not_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(BundleError, match="no manifest.json"):
        Bundle(tmp_path)
    with pytest.raises(BundleError, match="sha256"):
        Bundle(tmp_path / "notes.txt")


def test_writing_replaces_a_bundle_whole(folder: Path, archive: Path) -> None:
    with Bundle(archive) as opened:
        manifest = opened.manifest
        files = {name: opened.read(name) for name in manifest.files if name != "preview.png"}
    for path in (folder, archive):
        write_bundle(path, manifest, files, single_file=path == archive)
        with Bundle(path) as opened:
            assert "preview.png" not in opened.manifest.files
    assert sorted(os.listdir(folder.parent)) == ["copy.gan", "file.gan"]


def test_writing_never_replaces_anything_else(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"x")
    with Bundle(bundle) as opened, pytest.raises(BundleError, match="not a bundle"):
        write_bundle(tmp_path / "photos", opened.manifest, {})
    assert (tmp_path / "photos" / "cat.jpg").exists()
