"""What a page of gan web is made of, and where its runtime comes from."""

import base64
import gzip
import hashlib
import http.server
import json
import re
import threading
from pathlib import Path

import pytest
from conftest import rewrite_manifest

from ganexport.web import runtime
from ganexport.web.options import WebOptions
from ganexport.web.page import write_page
from ganexport.web.runtime import fetch_runtime, kept_runtime, open_runtime, registry
from ganinfer.bundle.archive import Bundle
from ganinfer.errors import BackendUnavailable, DataError, ExportError


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as npm unpacks it, whose runtime runs nothing: browsers are for the slow tests."""
    folder = tmp_path_factory.mktemp("node_modules")
    (folder / "dist").mkdir()
    (folder / "package.json").write_text('{"version": "1.2.3"}')
    module = "export const x = 1;\n//# sourceMappingURL=x.map\n"
    (folder / "dist/ort.wasm.bundle.min.mjs").write_text(module)
    (folder / "dist/ort-wasm-simd-threaded.wasm").write_bytes(b"\0asm")
    return folder


def written(bundle: Path, folder: Path, package: Path) -> str:
    write_page(bundle, folder / "x.html", WebOptions(runtime=package))
    return (folder / "x.html").read_text()


def packed(page: str, name: str) -> bytes:
    found = re.search(rf'<script type="application/gzip" id="{re.escape(name)}">(.*?)<', page)
    assert found is not None
    return gzip.decompress(base64.b64decode(found[1]))


def test_the_page_holds_the_graph_that_was_proven(
    bundle: Path, package: Path, tmp_path: Path
) -> None:
    page = written(bundle, tmp_path, package)
    with Bundle(bundle) as opened:
        assert packed(page, "graph.onnx") == opened.read_graph("fp32")
        assert f"sha256 {opened.sha256}" in page
        assert json.loads(packed(page, "page.json"))["bundle"] == opened.sha256
    assert "onnxruntime-web 1.2.3" in page
    assert packed(page, "runtime.js") == b"export const x = 1;\n"
    assert page == written(bundle, tmp_path, package)


def test_nothing_else_runs_in_it_and_nothing_is_asked_for(
    bundle: Path, package: Path, tmp_path: Path
) -> None:
    page = written(bundle, tmp_path, package)
    policy = re.search(r'Content-Security-Policy" content="(.*?)"', page)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; script-src 'sha256-")
    assert "connect-src" not in policy[1]
    running = re.findall(r"<script>(.*?)</script>|<style>(.*?)</style>", page, re.DOTALL)
    assert len(running) == 2
    for text in map("".join, running):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy[1]
    assert not re.search(r'(?:src|href)="(?!data:)', page)


def test_what_is_carried_and_what_was_not_proven_is_told(
    copied: Path, package: Path, tmp_path: Path
) -> None:
    page = written(copied, tmp_path, package)
    assert "compared with the original network" in page
    for words in ("Apache License", "Copyright (c) Microsoft Corporation", "MIT License"):
        assert words in page
    assert "<dt>Licence</dt><dd>not said" in page
    changes = {"verified": False, "license": "CC-BY-4.0"}
    rewrite_manifest(copied, lambda manifest: manifest.update(changes))
    page = written(copied, tmp_path, package)
    assert "exported without a comparison" in page
    assert "<dt>Licence</dt><dd>CC-BY-4.0" in page


def test_what_cannot_be_had_is_told(
    bundle: Path, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BackendUnavailable, match=r"run: gan fetch web, or name the folder"):
        write_page(bundle, tmp_path / "x.html")
    with pytest.raises(BackendUnavailable, match=r"package\.json.*expected the npm package"):
        write_page(bundle, tmp_path / "x.html", WebOptions(runtime=tmp_path))
    with pytest.raises(BackendUnavailable, match=r"no int8 variant; it holds fp32, fp16"):
        options = WebOptions(runtime=package, precision="int8")
        write_page(bundle, tmp_path / "x.html", options)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(ExportError, match=r"holds something else; expected a new folder"):
        write_page(bundle, tmp_path, WebOptions(runtime=package))
    monkeypatch.setattr("ganexport.web.page._MOST_BYTES", 1000)
    with pytest.raises(ExportError, match=r"in one file\. Name a folder"):
        write_page(bundle, tmp_path / "x.html", WebOptions(runtime=package))


def test_the_registry_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("npm_config_registry", raising=False)
    (tmp_path / "npm").write_text('#!/bin/sh\necho "https://of-npm/ $*"\n')
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BackendUnavailable, match="there is no npm.*gan fetch web --from onnx"):
        registry()
    (tmp_path / "npm").chmod(0o755)
    assert registry() == "https://of-npm/ config get registry"
    (tmp_path / ".npmrc").write_text("fund=false\nregistry = https://host/npm/\n")
    assert registry() == "https://host/npm/"
    monkeypatch.setenv("npm_config_registry", "http://other")
    assert registry() == "http://other"


def test_the_runtime_is_fetched_and_kept(
    downloads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"a package"
    asked = []

    class Registry(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None: ...

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.HTTPServer(("127.0.0.1", 0), Registry) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("npm_config_registry", f"http://127.0.0.1:{server.server_port}/")
        with pytest.raises(DataError, match=r"another file.*gan fetch web --from onnxruntime-web-"):
            fetch_runtime()
        assert not kept_runtime().exists()
        monkeypatch.setattr(runtime, "SHA256", hashlib.sha256(content).hexdigest())
        assert fetch_runtime().read_bytes() == content
        assert fetch_runtime() == kept_runtime()
        server.shutdown()
    assert asked == [f"/onnxruntime-web/-/onnxruntime-web-{runtime.VERSION}.tgz"] * 2
    with pytest.raises(BackendUnavailable, match=r"expected the npm package"):
        open_runtime(webgpu=False)
