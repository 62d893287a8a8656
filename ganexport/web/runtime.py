"""onnxruntime-web, which runs graphs in browsers: fetched once, or of a folder of the user's."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ganinfer.errors import BackendUnavailable, missing_extra
from ganinfer.host.fetching import fetch_file

VERSION = "1.30.0"
SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"

_FILE = f"onnxruntime-web-{VERSION}.tgz"
_REMEDY = f"gan fetch web --from {_FILE}"
_SOURCE_MAP = re.compile(rb"\n//# sourceMappingURL=\S+\s*\Z")


@dataclass(frozen=True)
class Runtime:
    """What a page needs of it.

    Attributes:
        version: of the package.
        module: JavaScript, a module.
        wasm: the WebAssembly that it starts.
        licences: texts that go wherever it goes.
    """

    version: str
    module: bytes
    wasm: bytes
    licences: str


def open_runtime(place: Path | None = None, *, webgpu: bool) -> Runtime:
    """Read it.

    Args:
        place: the folder of the npm package, or the package as npm packs it; by default what
            `fetch_runtime` has brought.
        webgpu: with WebGPU, which is twice as large, or WebAssembly alone.

    Raises:
        BackendUnavailable: it is not there, or lacks a file.
        MissingExtra: there is no onnxruntime, whose licences are those of its web build.
    """
    place = place or kept_runtime()
    if not place.exists():
        raise BackendUnavailable(
            f"{place}: no onnxruntime-web there, which draws in the page; run: gan fetch web, or"
            " name the folder of its npm package: --runtime node_modules/onnxruntime-web"
        )
    module = "dist/ort.webgpu.bundle.min.mjs" if webgpu else "dist/ort.wasm.bundle.min.mjs"
    wasm = f"dist/ort-wasm-simd-threaded{'.asyncify' * webgpu}.wasm"
    found = _read(place, ["package.json", module, wasm])
    return Runtime(
        version=json.loads(found["package.json"])["version"],
        module=_SOURCE_MAP.sub(b"\n", found[module]),
        wasm=found[wasm],
        licences=_licences(),
    )


def fetch_runtime(
    source: Path | None = None, *, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Bring the package into the user's cache folder, if it is not there.

    Args:
        source: the package as npm packs it, brought by hand; downloaded if None.
        progress: called with (bytes done, bytes in all).

    Returns:
        Where it is.

    Raises:
        DataError: it cannot be read, downloaded or kept, or is another; nothing is left behind.
        BackendUnavailable: nobody says from where.
    """
    origin = source or f"{registry().rstrip('/')}/onnxruntime-web/-/{_FILE}"
    return fetch_file(kept_runtime(), origin, SHA256, remedy=_REMEDY, progress=progress)


def registry() -> str:
    """Where npm's packages come from: what the user has told npm, or npm knows by itself.

    Raises:
        BackendUnavailable: there is no npm, and neither its variable nor ~/.npmrc says.
    """
    if told := os.environ.get("npm_config_registry"):  # noqa: SIM112 - so npm calls it
        return told
    try:
        settings = (Path.home() / ".npmrc").read_text()
    except OSError:
        settings = ""
    if found := re.search(r"^\s*registry\s*=\s*(\S+)", settings, re.MULTILINE):
        return found[1]
    npm = shutil.which("npm")
    if npm is None:
        raise BackendUnavailable(
            "gan fetch web: there is no npm, which knows where its packages come from; set"
            f" npm_config_registry to that URL, or bring what npm pack gives: {_REMEDY}"
        )
    asked = [npm, "config", "get", "registry"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()


def kept_runtime() -> Path:
    """Where `fetch_runtime` keeps it, whether it is there or not."""
    from platformdirs import user_cache_path

    return user_cache_path("ganpipe") / "web" / _FILE


def _read(place: Path, names: list[str]) -> dict[str, bytes]:
    try:
        if place.is_dir():
            return {name: (place / name).read_bytes() for name in names}
        with tarfile.open(place) as package:
            members = {name: package.extractfile(f"package/{name}") for name in names}
            return {name: member.read() for name, member in members.items() if member}
    except (OSError, KeyError, tarfile.TarError) as error:
        raise BackendUnavailable(
            f"{place}: {error}; expected the npm package onnxruntime-web, as npm install unpacks"
            f" it or npm pack packs it, of version {VERSION} or near it"
        ) from None


def _licences() -> str:
    """Of onnxruntime and all that is built into it; the npm package has no such files."""
    found = importlib.util.find_spec("onnxruntime")
    if found is None or found.origin is None:
        raise missing_extra("onnxruntime")
    folder = Path(found.origin).parent
    return "\n\n".join(
        (folder / name).read_text("utf-8") for name in ("LICENSE", "ThirdPartyNotices.txt")
    )
