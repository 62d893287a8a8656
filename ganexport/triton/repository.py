"""A bundle becomes a model repository: the folder that tritonserver serves.

README.md  ganpipe.json  NAME/  NAME_latents/  NAME_generator/  [NAME_png/  NAME_packing/]

See `ganexport.triton.configs` for what each does. Seeds are drawn in the repository by copies of
ganinfer's own files, so that nothing is to be installed where Triton runs.
"""

import json
from pathlib import Path

import ganexport.triton
import ganinfer
from ganexport.extraction.extract import extracted
from ganexport.extraction.options import ExtractOptions
from ganexport.triton import configs
from ganexport.triton.options import TritonOptions, check_name
from ganexport.triton.readme import readme
from ganinfer.backends._base import pick_precision
from ganinfer.backends.onnxruntime import precisions
from ganinfer.bundle.archive import Bundle
from ganinfer.bundle.large_onnx import LargeOnnx
from ganinfer.bundle.manifest import Engine
from ganinfer.bundle.tree import write_tree
from ganinfer.drawing.images import check_picture
from ganinfer.errors import BundleError, ExportError

MARK = "ganpipe.json"
# Of ganinfer; what NAME_latents and NAME_packing import, and nothing more.
_DRAWING = (
    "errors.py",
    *(f"drawing/{name}.py" for name in ("inputs", "latents", "normal", "philox", "reading")),
)
_PACKING = ("errors.py", "files.py", "drawing/images.py", "drawing/reading.py")
_NOTHING = b"An ensemble has no file of its own; Triton wants this folder to be there.\n"


def write_repository(bundle: Path, destination: Path, options: TritonOptions) -> list[str]:
    """Write a model repository, whole or not at all; an older one there is replaced.

    Args:
        bundle: whose every byte is checked first.
        destination: the folder.
        options: how it is served.

    Returns:
        The names of its models; clients ask the first.

    Raises:
        BundleError: the bundle is damaged, unverified, or not signed by that key.
        BackendUnavailable: it does not hold the precision.
        ExportError: Triton cannot serve it so, or something else is at the destination.
        OSError: the disk is full or not writable; nothing is left behind.
    """
    _check_destination(destination)
    with Bundle(bundle, public_key=options.public_key) as opened:
        tree = _tree(opened, options)
    write_tree(destination, tree, single_file=False)
    names: list[str] = json.loads(tree[MARK])["models"]
    return names


def _tree(bundle: Bundle, options: TritonOptions) -> dict[str, bytes]:
    """Relative path -> content."""
    manifest = bundle.manifest
    if not manifest.verified and not options.allow_unverified:
        raise BundleError(
            f"{bundle.path}: was exported with --no-verify: nobody knows whether it is the"
            " generator that was trained; export it again, or pass --allow-unverified"
        )
    name = options.name or bundle.name
    check_name(name)
    if options.png:
        check_picture(manifest.model.channels)
    engine = _engine(bundle, options) if options.backend == "tensorrt" else None
    model = manifest.model.model_copy(update={"style_input": None})
    described = {
        name: configs.ensemble(name, model, options),
        f"{name}_latents": configs.latents(name, model, options),
        f"{name}_generator": configs.generator(name, model, options, engine),
    }
    if options.png:
        described[f"{name}_png"] = configs.png_ensemble(name, model, options)
        described[f"{name}_packing"] = configs.packing(name, model, options)
    origin = {"key": "bundle_sha256", "value": {"string_value": bundle.sha256}}
    precision = {"key": "precision", "value": {"string_value": options.precision}}
    mark = {"bundle_sha256": bundle.sha256, "models": list(described)}
    tree = {
        "README.md": readme(name, bundle, options, engine).encode(),
        MARK: json.dumps(mark, indent=1).encode() + b"\n",
    }
    for one, config in described.items():
        text = configs.to_text(config | {"parameters": [origin, precision]})
        tree[f"{one}/config.pbtxt"] = text.encode()
        if config.get("platform") == "ensemble":
            tree[f"{one}/1/README"] = _NOTHING
    tree |= _python_files(f"{name}_latents/1", "latents_model.py", _DRAWING)
    tree[f"{name}_latents/1/model.json"] = model.model_dump_json(indent=1).encode() + b"\n"
    if options.png:
        tree |= _python_files(f"{name}_packing/1", "packing_model.py", _PACKING)
    return tree | _network(f"{name}_generator/1", bundle, options, engine)


def _python_files(folder: str, program: str, modules: tuple[str, ...]) -> dict[str, bytes]:
    """A program for Triton's Python backend, and ganinfer's modules beside it as they are here."""
    ours, theirs = (Path(package.__path__[0]) for package in (ganexport.triton, ganinfer))
    packages = ("ganinfer/__init__.py", "ganinfer/drawing/__init__.py")
    return {
        f"{folder}/model.py": (ours / program).read_bytes(),
        **{f"{folder}/{name}": b"" for name in packages},
        **{f"{folder}/ganinfer/{name}": (theirs / name).read_bytes() for name in modules},
    }


def _network(
    folder: str, bundle: Bundle, options: TritonOptions, engine: Engine | None
) -> dict[str, bytes]:
    """The file of the network; weights of more than 2 GB lie beside it, in a folder model.onnx."""
    if engine is not None:
        return {f"{folder}/model.plan": bundle.read(engine.path)}
    graph = _graph(bundle, options.precision)
    if isinstance(graph, LargeOnnx):
        if options.backend != "onnxruntime":
            raise ExportError(
                f"{bundle.path}: the weights of {options.precision} lie beside its graph, which"
                " onnxruntime does not pass on to TensorRT; use backend onnxruntime"
            )
        inner = f"{folder}/model.onnx"
        return {f"{inner}/model.onnx": graph, f"{inner}/{graph.location}": graph.weights}
    return {f"{folder}/model.onnx": graph}


def _graph(bundle: Bundle, precision: str) -> bytes:
    """The ONNX file; a StyleGAN's is cut where styles could be given instead of z."""
    chosen = pick_precision(bundle, precisions(bundle), precision, [precision])
    if bundle.manifest.model.style_input is None:
        return bundle.read_graph(chosen)
    return extracted(bundle, ExtractOptions(precision=chosen))


def _engine(bundle: Bundle, options: TritonOptions) -> Engine:
    """The engine of TensorRT that is asked for.

    Raises:
        ExportError: there is none, there are several, or Triton cannot serve it so.
    """
    if bundle.manifest.model.style_input is not None:
        raise ExportError(
            f"{bundle.path}: its engines take styles w beside z, which no client of this repository"
            " sends; use backend onnxruntime or onnxruntime_tensorrt"
        )
    engines = bundle.manifest.engines
    held = ", ".join(f"{e.product} {e.version} {e.target} {e.precision}" for e in engines)
    found = [
        engine
        for engine in engines
        if engine.product == "tensorrt" and engine.precision == options.precision
        if options.target in (None, engine.target)
    ]
    if not found:
        raise ExportError(
            f"{bundle.path}: no {options.precision} engine of tensorrt"
            + (f" for {options.target}" if options.target else "")
            + f"; it holds {held or 'none'}, and Triton runs none of tensorrt_rtx. Export it with"
            " --trt --trt-product tensorrt, or use backend onnxruntime_tensorrt, which builds one"
        )
    if len(found) > 1:
        raise ExportError(f"{bundle.path}: it holds {held}; choose one with --target")
    (engine,) = found
    least, most = min(p[0] for p in engine.profiles), max(p[2] for p in engine.profiles)
    if least > 1 or options.batch_size > most:
        raise ExportError(
            f"{bundle.path}: this engine runs batches of {least} to {most}; Triton needs those of 1"
            f" to batch_size, {options.batch_size}: choose another, or export it with --profile"
        )
    return engine


def _check_destination(path: Path) -> None:
    """Refuse to replace anything that is not a repository as written here.

    Raises:
        ExportError: it is a file, or holds something else.
    """
    if not path.exists():
        return
    found = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
    try:
        own = {"README.md", MARK, *json.loads((path / MARK).read_bytes())["models"]}
    except (OSError, ValueError, KeyError, TypeError):
        own = set()
    if not path.is_dir() or found - own:
        other = f": {min(found - own)} is not of it" if own else ""
        raise ExportError(
            f"{path}: exists and is not a repository that gan triton wrote{other}; choose another"
            " folder. Triton serves several: --model-repository a --model-repository b"
        )
