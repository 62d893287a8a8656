import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import rewrite_manifest

from ganinfer.bundle.archive import Bundle, write_bundle
from ganinfer.bundle.tree import write_tree
from ganinfer.errors import BundleError
from ganinfer.files import sha256_bytes


def declare(name: str, data: bytes) -> Callable[[dict], None]:
    def change(manifest: dict) -> None:
        manifest["files"][name] = {"sha256": sha256_bytes(data), "size": len(data)}

    return change


@pytest.fixture
def archived(bundle: Path, tmp_path: Path) -> Path:
    """A bundle of one's own, as one file."""
    with Bundle(bundle) as opened:
        write_tree(tmp_path / "file.gan", opened.tree(), single_file=True)
    return tmp_path / "file.gan"


def test_both_forms_hold_the_same(copied: Path, archived: Path) -> None:
    with Bundle(copied) as a, Bundle(archived) as b:
        assert a.manifest == b.manifest
        assert all(a.read(name) == b.read(name) for name in a.manifest.files)


def test_the_same_bundle_is_the_same_file(archived: Path, copied: Path, tmp_path: Path) -> None:
    with Bundle(copied) as opened:
        files = {name: opened.read(name) for name in opened.manifest.files}
        write_bundle(tmp_path / "again.gan", opened.manifest, files, single_file=True)
    assert (tmp_path / "again.gan").read_bytes() == archived.read_bytes()


def test_any_flipped_byte_in_a_directory_is_noticed(copied: Path) -> None:
    rng = np.random.default_rng(0)
    files = sorted(path for path in copied.rglob("*") if path.is_file())
    for n in range(300):
        path = files[n % len(files)]
        original = path.read_bytes()
        damaged = bytearray(original)
        damaged[rng.integers(len(damaged))] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        with pytest.raises(BundleError):
            Bundle(copied)
        path.write_bytes(original)
    Bundle(copied).close()


def test_any_flipped_byte_in_a_file_is_noticed(archived: Path) -> None:
    rng = np.random.default_rng(1)
    original = archived.read_bytes()
    # Half of them where the zip keeps its tables.
    for n in range(300):
        damaged = bytearray(original)
        low = len(damaged) - 2000 if n % 2 else 0
        damaged[rng.integers(low, len(damaged))] ^= int(rng.integers(1, 256))
        archived.write_bytes(damaged)
        with pytest.raises(BundleError):
            Bundle(archived)
    archived.write_bytes(original)
    Bundle(archived).close()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_named(copied: Path, archived: Path, share: float) -> None:
    archived.write_bytes(archived.read_bytes()[: int(share * archived.stat().st_size)])
    with pytest.raises(BundleError, match="file.gan"):
        Bundle(archived)
    path = copied / "onnx" / "fp32.onnx"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(BundleError, match=r"onnx/fp32.onnx: found \d+ bytes, expected \d+ bytes"):
        Bundle(copied)


def test_an_extra_file_is_named(copied: Path) -> None:
    (copied / "onnx" / "extra.bin").write_bytes(b"x")
    with pytest.raises(BundleError, match="onnx/extra.bin is not in the manifest"):
        Bundle(copied)


def test_a_missing_file_is_named(copied: Path) -> None:
    (copied / "golden" / "images.npy").unlink()
    with pytest.raises(BundleError, match="golden/images.npy is missing"):
        Bundle(copied)


@pytest.mark.parametrize(
    "name", ["../outside.onnx", "/etc/passwd", "a/../../b", "onnx\\x", "./x", ""]
)
def test_a_path_out_of_the_bundle_is_refused(copied: Path, name: str) -> None:
    rewrite_manifest(copied, declare(name, b""))
    with pytest.raises(BundleError, match="missing|file name"):
        Bundle(copied)


def test_weights_outside_the_graph_are_refused(copied: Path) -> None:
    path = copied / "onnx" / "fp32.onnx"
    model = onnx.load(path)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    data = model.SerializeToString()
    path.write_bytes(data)
    rewrite_manifest(copied, declare("onnx/fp32.onnx", data))
    with Bundle(copied) as opened, pytest.raises(BundleError, match="keeps weights outside"):
        opened.read_graph("fp32")


def test_pickled_golden_images_are_refused(copied: Path) -> None:
    from ganinfer import Sampler

    np.save(copied / "golden" / "images.npy", np.array([{"a": 1}], object), allow_pickle=True)
    data = (copied / "golden" / "images.npy").read_bytes()
    rewrite_manifest(copied, declare("golden/images.npy", data))
    with pytest.raises(BundleError, match="golden/images.npy"):
        Sampler(copied)


@pytest.mark.parametrize(
    "data",
    [
        b"PK\x05\x06" + b"\0" * 18,
        b"\x93NUMPY\x01\x00\x76\x00{'descr': '|u1', 'fortran_order': False, 'shape': (10**12,)}",
        b"",
        b"\x93NUMPY\x01\x00\x10\x00((((((((((((((((",
    ],
)
def test_a_golden_file_that_is_not_the_expected_array_is_never_parsed(copied, data) -> None:
    from ganinfer import Sampler

    (copied / "golden" / "images.npy").write_bytes(data)
    rewrite_manifest(copied, declare("golden/images.npy", data))
    with pytest.raises(BundleError, match="golden/images.npy: not an .npy file of uint8"):
        Sampler(copied)


def test_a_manifest_that_does_not_fit_its_graph_is_an_error_in_words(copied: Path) -> None:
    from ganinfer import Sampler
    from ganinfer.errors import BackendUnavailable

    rewrite_manifest(copied, lambda manifest: manifest["model"].update(z_dim=7))
    with pytest.raises(BackendUnavailable, match=r"(onnxruntime|openvino) failed on cpu"):
        Sampler(copied)


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


def test_writing_replaces_a_bundle_whole(copied: Path, archived: Path) -> None:
    with Bundle(archived) as opened:
        manifest = opened.manifest
        files = {name: opened.read(name) for name in manifest.files if name != "preview.png"}
    for path in (copied, archived):
        write_bundle(path, manifest, files, single_file=path == archived)
        with Bundle(path) as opened:
            assert "preview.png" not in opened.manifest.files
    assert sorted(os.listdir(copied.parent)) == ["copy.gan", "file.gan"]


def test_writing_never_replaces_anything_else(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"x")
    with Bundle(bundle) as opened, pytest.raises(BundleError, match="not a bundle"):
        write_bundle(tmp_path / "photos", opened.manifest, {})
    assert (tmp_path / "photos" / "cat.jpg").exists()
