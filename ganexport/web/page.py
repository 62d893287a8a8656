"""A page that draws a bundle's images in a browser, of itself: one file, or a folder to serve."""

import base64
import gzip
import hashlib
import html
import importlib.metadata
import json
import re
from graphlib import TopologicalSorter
from importlib.resources import files
from pathlib import Path
from string import Template

import ganinfer
from ganexport.web.options import WebOptions
from ganexport.web.runtime import Runtime, open_runtime
from ganinfer.backends._base import pick_precision
from ganinfer.bundle.archive import Bundle
from ganinfer.bundle.golden import limits_of, read_golden
from ganinfer.bundle.large_onnx import LargeOnnx
from ganinfer.errors import ExportError
from ganinfer.files import check_place, sha256_bytes, write_atomic

LARGE_BYTES = 20 << 20  # a larger graph is taken in fp16, if there is one
LARGE_MACS = 300_000_000  # an image of so many is worth the larger runtime, which has WebGPU
_MOST_BYTES = 256 << 20  # of a graph in one file; browsers hold no longer texts

_PLAYGROUND = files("ganinfer") / "server/playground"
_WEB = files("ganexport.web")
_SHARED = ("controls.js", "page.js", "pictures.js", "snippets.js")
_OWN = ("draw.mjs", "golden.js", "inputs.js", "runner.js", "source.js", "worker.js")
_IMPORT = re.compile(r'from "\./([\w.]+)"')

Parts = dict[str, bytes]  # by the names of files


def write_page(bundle: Path, destination: Path, options: WebOptions | None = None) -> None:
    """Write a page that draws what `Sampler` draws, and first of all the golden images.

    Args:
        bundle: whose every byte is checked first.
        destination: name.html, one file that asks nobody for anything; or else a folder, of
            index.html and what it loads from beside it, for a server.
        options: see `WebOptions`.

    Raises:
        BundleError: the bundle is damaged.
        BackendUnavailable: there is no such graph, or onnxruntime-web is not there.
        ExportError: the graph is too large, or the folder holds something else.
        RequestError: the file cannot be written there.
    """
    options = options or WebOptions()
    is_file = destination.suffix == ".html"
    if is_file:
        check_place(destination, ".html")
    else:
        _check_folder(destination)
    with Bundle(bundle) as source:
        graph, data = _data(source, options)
        webgpu = (source.manifest.model.macs or 0) >= LARGE_MACS
        runtime = open_runtime(options.runtime, webgpu=webgpu)
        about = _about(source, graph, data["graph.onnx"], runtime)
        described = _description(source, graph, webgpu=webgpu)
    if is_file and len(data["graph.onnx"]) > _MOST_BYTES:
        raise ExportError(
            f"{destination}: the graph has more than {_MOST_BYTES >> 20} MiB; browsers hold no such"
            " page in one file. Name a folder, as in site/"
        )
    data |= {"page.json": described}
    data |= {"runtime.js": runtime.module, "runtime.wasm": runtime.wasm}
    modules = {name: (_PLAYGROUND / name).read_bytes() for name in _SHARED}
    modules |= {name: (_WEB / name).read_bytes() for name in _OWN}
    page = _page(source.name, about)
    if is_file:
        modules["parts.js"] = (_WEB / "inside.js").read_bytes()
        write_atomic(destination, _one_file(page, modules, data).encode())
    else:
        modules["parts.js"] = (_WEB / "beside.js").read_bytes()
        _write_folder(destination, page, modules | data)


def _data(bundle: Bundle, options: WebOptions) -> tuple[str, Parts]:
    """The precision of the graph, and what is no program."""
    manifest = bundle.manifest
    sizes = {g.precision: manifest.files[g.path].size for g in manifest.graphs}
    large = sizes["fp32"] > LARGE_BYTES and "fp16" in sizes
    wanted = options.precision or ("fp16" if large else "fp32")
    precision = pick_precision(bundle, list(sizes), wanted, [])
    graph = bundle.read_graph(precision)
    if isinstance(graph, LargeOnnx):
        raise ExportError(f"{bundle.path}: more than 2 GB of weights; no browser holds them")
    data = {"graph.onnx": graph, "golden": read_golden(bundle)[1].tobytes()}
    if manifest.mapping is not None:
        data["mapping.onnx"] = bundle.read_onnx(manifest.mapping)
    return precision, data


def _description(bundle: Bundle, precision: str, *, webgpu: bool) -> bytes:
    """What the programs need to know, JSON; seeds are texts, as JSON's numbers are too short."""
    golden = bundle.manifest.golden
    told = {
        "name": bundle.name,
        "bundle": bundle.sha256,
        "model": bundle.manifest.model.model_dump(),
        "precision": precision,
        "webgpu": webgpu,
        "golden": {
            "seeds": [str(seed) for seed in golden.seeds],
            "labels": golden.labels,
            "truncations": golden.truncations,
            "limits": limits_of(golden, precision).model_dump(),
        },
    }
    return json.dumps(told).encode()


def _about(bundle: Bundle, precision: str, graph: bytes, runtime: Runtime) -> str:
    """The part of the page that says what is in it."""
    signature = "none"
    if bundle.signature is not None:
        signature = f"{bundle.signature.decode().strip()} (Ed25519, of the manifest)"
    proof = "compared with the original network at the export, within all limits"
    if not bundle.manifest.verified:
        proof = "none: exported without a comparison with the original network"
    told = {
        "bundle": f"sha256 {bundle.sha256}",
        "signature": signature,
        "proof": proof,
        "license": bundle.manifest.license or "not said",
        "graph": f"{precision}, {len(graph):,} bytes, sha256 {sha256_bytes(graph)}",
        "runtime": f"onnxruntime-web {runtime.version}",
        "maker": f"ganpipe {ganinfer.__version__}",
        "licences": _licences(runtime),
    }
    about = Template((_WEB / "about.html").read_text())
    return about.substitute({name: html.escape(text) for name, text in told.items()})


def _licences(runtime: Runtime) -> str:
    own = importlib.metadata.distribution("ganpipe").read_text("licenses/LICENSE") or "Apache-2.0"
    return f"ganpipe\n\n{own}\n\nonnxruntime-web\n\n{runtime.licences}"


def _page(name: str, about: str) -> str:
    """The playground's own, with what is known before it has run."""
    page = (_PLAYGROUND / "page.html").read_text()
    page = _replaced(page, '<p id="facts"></p>', f'<p id="facts">{html.escape(name)} opens …</p>')
    page = _replaced(page, "<title>Playground</title>", f"<title>{html.escape(name)}</title>")
    return _replaced(page, "  </main>\n", f"{about}  </main>\n")


def _one_file(page: str, modules: Parts, data: Parts) -> str:
    """All in one: programs as texts, which a loader makes modules of, and the rest packed."""
    style = (_PLAYGROUND / "page.css").read_text()
    icon = base64.b64encode((_PLAYGROUND / "icon.svg").read_bytes()).decode()
    loader = (_WEB / "loader.js").read_text()
    policy = (
        f"default-src 'none'; script-src '{_digest(loader)}' blob: 'wasm-unsafe-eval';"
        f" worker-src blob:; style-src '{_digest(style)}'; img-src blob: data:;"
        " base-uri 'none'; form-action 'none'"
    )
    held = [_text(name, modules[name]) for name in _in_order(modules)]
    held += [_packed(name, content) for name, content in data.items()]
    page = _with_policy(page, policy)
    page = _replaced(page, "playground/icon.svg", f"data:image/svg+xml;base64,{icon}")
    page = _replaced(
        page,
        '<link rel="stylesheet" href="playground/page.css">',
        f"<style>{style}</style>",
    )
    page = _replaced(page, '  <script type="module" src="playground/page.js"></script>\n', "")
    return _replaced(page, "</body>", f"{''.join(held)}<script>{loader}</script>\n</body>")


def _check_folder(folder: Path) -> None:
    """Nobody's files are written over."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "playground").is_dir():
        raise ExportError(
            f"{folder}: holds something else; expected a new folder, one that gan web made, or a"
            " name that ends in .html"
        )


def _write_folder(folder: Path, page: str, parts: Parts) -> None:
    policy = (
        "default-src 'none'; script-src 'self' blob: 'wasm-unsafe-eval'; worker-src 'self';"
        " connect-src 'self'; style-src 'self'; img-src 'self' blob: data:;"
        " base-uri 'none'; form-action 'none'"
    )
    (folder / "playground").mkdir(parents=True, exist_ok=True)
    for name in ("page.css", "icon.svg"):
        parts[name] = (_PLAYGROUND / name).read_bytes()
    for name, content in parts.items():
        write_atomic(folder / "playground" / name, content)
    write_atomic(folder / "index.html", _with_policy(page, policy).encode())


def _with_policy(page: str, policy: str) -> str:
    charset = '  <meta charset="utf-8">\n'
    told = f'  <meta http-equiv="Content-Security-Policy" content="{policy}">\n'
    return _replaced(page, charset, charset + told)


def _replaced(page: str, old: str, new: str) -> str:
    assert page.count(old) == 1, old
    return page.replace(old, new)


def _digest(text: str) -> str:
    """As a content security policy names a script or a style."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _in_order(modules: Parts) -> list[str]:
    """Each after those that it imports."""
    needs = {name: set(_IMPORT.findall(code.decode())) for name, code in modules.items()}
    return list(TopologicalSorter(needs).static_order())


def _text(name: str, code: bytes) -> str:
    text = code.decode()
    if re.search(r"<!--|</?script", text, re.IGNORECASE):
        raise ExportError(f"{name}: holds marks that no program in a page may hold")
    return f'<script type="text/plain" id="{name}">\n{text}</script>\n'


def _packed(name: str, content: bytes) -> str:
    packed = base64.b64encode(gzip.compress(content, mtime=0)).decode()
    return f'<script type="application/gzip" id="{name}">{packed}</script>\n'
