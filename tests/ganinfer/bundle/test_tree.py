import os
import shutil
import zipfile
from pathlib import Path

import pytest

from ganinfer.bundle.tree import StoredTree, write_tree
from ganinfer.errors import BundleError

TREE = {"a.json": b"{}", "onnx/b.onnx": bytes(1000), "empty": b""}
FORMS = pytest.mark.parametrize("single_file", [False, True], ids=["folder", "file"])


def contents(path: Path) -> dict[str, bytes]:
    stored = StoredTree(path)
    found = {name: stored.read(name, size) for name, size in stored.sizes().items()}
    stored.close()
    return found


@FORMS
def test_what_is_written_is_read(tmp_path: Path, single_file: bool) -> None:
    write_tree(tmp_path / "new" / "x.gan", TREE, single_file=single_file)
    assert contents(tmp_path / "new" / "x.gan") == TREE
    assert os.listdir(tmp_path / "new") == ["x.gan"]


@FORMS
def test_what_is_there_is_replaced_whole_by_either_form(tmp_path: Path, single_file: bool) -> None:
    for first in (False, True):
        write_tree(tmp_path / "x.gan", {"old": b"x"}, single_file=first)
        write_tree(tmp_path / "x.gan", TREE, single_file=single_file)
        assert contents(tmp_path / "x.gan") == TREE
        assert os.listdir(tmp_path) == ["x.gan"]


@FORMS
def test_a_file_longer_than_declared_is_read_one_byte_too_far(tmp_path, single_file) -> None:
    write_tree(tmp_path / "x.gan", {"a": b"12345"}, single_file=single_file)
    stored = StoredTree(tmp_path / "x.gan")
    assert stored.read("a", 3) == b"1234"
    stored.close()


@pytest.mark.parametrize("name", ["x.gan", "x[1].gan"])
def test_what_a_killed_writer_left_behind_is_cleared(tmp_path: Path, name: str) -> None:
    left, recent = (tmp_path / f".{name}.{digit * 32}" for digit in "ab")
    for place in (left, recent):
        place.mkdir()
        (place / "a.json").write_text("{")
    os.utime(left, (0, 0))
    write_tree(tmp_path / name, TREE, single_file=False)
    assert not left.exists()
    assert recent.exists()


def test_a_link_to_a_tree_stays_a_link(tmp_path: Path) -> None:
    link = tmp_path / "latest.gan"
    link.symlink_to(tmp_path / "x.gan", target_is_directory=True)
    for tree in ({"old": b"x"}, TREE):
        write_tree(link, tree, single_file=False)
    assert link.is_symlink()
    assert contents(tmp_path / "x.gan") == TREE


def test_a_link_in_a_folder_is_refused(tmp_path: Path) -> None:
    write_tree(tmp_path / "x.gan", TREE, single_file=False)
    shutil.move(tmp_path / "x.gan" / "a.json", tmp_path / "elsewhere.json")
    (tmp_path / "x.gan" / "a.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(BundleError, match="a.json is a link"):
        contents(tmp_path / "x.gan")


@pytest.mark.parametrize("name", ["../outside.onnx", "/etc/passwd", "a/../../b", ".hidden"])
def test_a_zip_member_of_an_odd_name_is_refused(tmp_path: Path, name: str) -> None:
    write_tree(tmp_path / "x.gan", {**TREE, name: b"x"}, single_file=True)
    with pytest.raises(BundleError, match="file name"):
        contents(tmp_path / "x.gan")


def test_a_zip_file_without_its_closing_sha256_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.gan", "w") as archive:
        archive.writestr("a.json", b"{}")
    with pytest.raises(BundleError, match="closing sha256"):
        StoredTree(tmp_path / "x.gan")


@pytest.mark.parametrize(
    "litter",
    [
        *(".DS_Store", "._a.json", ".nfs000001", "Thumbs.db", "desktop.ini", ".gitattributes"),
        *("@eaDir/x@SynoEAStream", ".snapshot/a.json", "lost+found/x", "__MACOSX/._a.json"),
        "b/.DS_Store",
    ],
)
def test_what_file_systems_put_there_is_none_of_it(tmp_path: Path, litter: str) -> None:
    folder = tmp_path / "x.gan"
    write_tree(folder, TREE, single_file=False)
    (folder / litter).parent.mkdir(exist_ok=True)
    (folder / litter).write_bytes(b"junk")
    assert contents(folder) == TREE


@pytest.mark.parametrize("linked", ["files", "folders"])
def test_a_volume_of_links_is_read(tmp_path: Path, linked: str) -> None:
    """As Kubernetes mounts a ConfigMap or a secret."""
    folder = tmp_path / "volume"
    folder.mkdir()
    write_tree(folder / "..2026_11_29", TREE, single_file=False)
    (folder / "..data").symlink_to("..2026_11_29")
    names = {name.partition("/")[0] for name in TREE} if linked == "folders" else set(TREE)
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(folder / "..data" / name)
    assert contents(folder) == TREE


def test_a_snapshot_of_the_hubs_cache_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "models--a--b" / "snapshots" / "abc" / "x.gan"
    blobs = tmp_path / "models--a--b" / "blobs"
    blobs.mkdir(parents=True)
    folder.parent.mkdir(parents=True)
    for number, (name, data) in enumerate(TREE.items()):
        (blobs / str(number)).write_bytes(data)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(blobs / str(number))
    assert contents(folder) == TREE


def test_a_link_to_a_folder_above_is_refused(tmp_path: Path) -> None:
    write_tree(tmp_path / "x.gan", TREE, single_file=False)
    (tmp_path / "x.gan" / "again").symlink_to(tmp_path / "x.gan")
    with pytest.raises(BundleError, match="again is a special file, or a link to a folder above"):
        contents(tmp_path / "x.gan")
