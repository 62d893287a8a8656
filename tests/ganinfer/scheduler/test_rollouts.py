"""A bundle that is replaced while others open it."""

import shutil
import threading
from pathlib import Path

import pytest
from conftest import rewrite_manifest

from ganinfer import Sampler
from ganinfer.bundle.archive import Bundle
from ganinfer.bundle.tree import write_tree
from ganinfer.errors import BundleError


def test_what_opens_meanwhile_is_the_old_or_the_new_one(bundle: Path, tmp_path: Path) -> None:
    path, other = tmp_path / "x.gan", Path(shutil.copytree(bundle, tmp_path / "y.gan"))
    rewrite_manifest(other, lambda tree: tree["model"].update(family="another"))
    trees = []
    for one in (bundle, other):
        with Bundle(one) as opened:
            trees.append((opened.sha256, opened.tree()))
    write_tree(path, trees[0][1], single_file=False)
    done = threading.Event()

    def replace() -> None:
        while not done.is_set():
            for _, tree in trees:
                write_tree(path, tree, single_file=False)

    writer = threading.Thread(target=replace)
    writer.start()
    try:
        found = set()
        for _ in range(30):
            with Sampler(path, device="cpu", backend="onnxruntime", precision="fp32") as sampler:
                found.add(sampler.sha256)
    finally:
        done.set()
        writer.join()
    assert found <= {sha256 for sha256, _ in trees}


def test_what_is_damaged_is_not_tried_for_ever(bundle: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(bundle, tmp_path / "x.gan"))
    graph = path / "onnx" / "fp32.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match="sha256"):
        Sampler(path, backend="onnxruntime", precision="fp32")
