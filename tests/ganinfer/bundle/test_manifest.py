from pathlib import Path

import pytest
from conftest import rewrite_manifest

from ganinfer.bundle.archive import Bundle
from ganinfer.bundle.manifest import MANIFEST, MANIFEST_DIGEST, digest_line
from ganinfer.errors import BundleError
from ganinfer.files import sha256_bytes


def test_the_manifest_verifies_with_sha256sum(copied: Path) -> None:
    line = (copied / "manifest.sha256").read_text()
    assert line == f"{sha256_bytes((copied / MANIFEST).read_bytes())}  manifest.json\n"


def test_a_newer_format_version_asks_for_an_upgrade(copied: Path) -> None:
    rewrite_manifest(copied, lambda manifest: manifest.update(format_version=2))
    with pytest.raises(BundleError, match=r"format_version 2, this ganinfer reads 1; upgrade"):
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
