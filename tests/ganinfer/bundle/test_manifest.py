import json
from pathlib import Path

import pytest
from conftest import rewrite_manifest

from ganinfer.bundle.archive import Bundle
from ganinfer.bundle.manifest import (
    MANIFEST,
    MANIFEST_DIGEST,
    digest_line,
    format_version,
    parse_manifest,
)
from ganinfer.errors import BundleError
from ganinfer.files import sha256_bytes


def test_the_manifest_verifies_with_sha256sum(copied: Path) -> None:
    line = (copied / "manifest.sha256").read_text()
    assert line == f"{sha256_bytes((copied / MANIFEST).read_bytes())}  manifest.json\n"


def test_a_newer_format_version_asks_for_an_upgrade(copied: Path) -> None:
    rewrite_manifest(copied, lambda manifest: manifest.update(format_version=4))
    with pytest.raises(BundleError, match=r"format_version 4, this ganinfer reads 1 to 3; upgr"):
        Bundle(copied)


@pytest.mark.parametrize(
    ("resolution", "channels", "version", "shape"),
    [
        (24, 1, 1, (24, 24, 1)),
        (24, 3, 1, (24, 24, 3)),
        (24, 2, 2, (24, 24, 2)),
        (24, 4, 2, (24, 24, 4)),
        ([24, 40], 3, 2, (24, 40, 3)),
        ([40, 24], 1, 2, (40, 24, 1)),
    ],
)
def test_images_that_older_readers_do_not_know_are_format_2(
    bundle: Path, resolution: int | list[int], channels: int, version: int, shape: tuple
) -> None:
    found = json.loads((bundle / MANIFEST).read_text())
    assert (found["format_version"], found["model"]["resolution"]) == (1, 16)
    found["model"] |= {"resolution": resolution, "channels": channels}
    manifest = parse_manifest(json.dumps(found).encode(), where="x")
    assert manifest.model.shape == shape
    assert format_version(manifest.model) == version
    assert json.loads(manifest.to_json())["model"] == found["model"]


@pytest.mark.parametrize("resolution", [0, [24, 0], [24], [24, 40, 3], [24, 2**40], "24", None])
def test_a_shape_that_no_image_has_is_refused(copied: Path, resolution: object) -> None:
    rewrite_manifest(copied, lambda manifest: manifest["model"].update(resolution=resolution))
    with pytest.raises(BundleError, match=r"model.resolution.*: found .*; .* should"):
        Bundle(copied)


def test_a_graph_whose_path_is_undeclared_is_refused(copied: Path) -> None:
    def change(manifest: dict) -> None:
        manifest["graphs"][0]["path"] = "../../secret.onnx"

    rewrite_manifest(copied, change)
    with pytest.raises(BundleError, match="secret.onnx is missing"):
        Bundle(copied)


def test_an_unknown_field_is_refused(copied: Path) -> None:
    rewrite_manifest(copied, lambda manifest: manifest.update(surprise=1))
    with pytest.raises(BundleError, match="surprise"):
        Bundle(copied)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, '{"format_version": 1}', "null"])
def test_nonsense_for_a_manifest_is_refused(copied: Path, text: str) -> None:
    (copied / MANIFEST).write_text(text)
    (copied / MANIFEST_DIGEST).write_bytes(digest_line(text.encode()))
    with pytest.raises(BundleError, match=MANIFEST):
        Bundle(copied)


def test_an_unknown_precision_is_refused(copied: Path) -> None:
    rewrite_manifest(copied, lambda manifest: manifest["graphs"][0].update(precision="fp4"))
    with pytest.raises(BundleError, match=r"graphs.0.precision: found 'fp4'"):
        Bundle(copied)
