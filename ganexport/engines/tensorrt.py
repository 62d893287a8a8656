"""ONNX -> TensorRT plan: one builder for `tensorrt` and for `tensorrt_rtx`.

`tensorrt` builds for the GPU that is there. `tensorrt_rtx` builds ahead of time, without a GPU, for
a portable default or for named compute capabilities. Both are strongly typed: the precision is that
of the ONNX file.
"""

import hashlib
import importlib
import importlib.util
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from platformdirs import user_cache_path

from ganexport.engines.refusals import explain_builder, explain_parser
from ganexport.engines.report import of_network
from ganexport.engines.targets import (
    CURRENT,
    Product,
    Target,
    check_precision,
    default_targets,
    find_target,
)
from ganexport.engines.timings import keep_timings, use_timings
from ganexport.options import DEFAULT_PROFILES, Profile
from ganinfer.backends._cuda import compute_capability
from ganinfer.backends._tensorrt_library import host_platform, product_logger
from ganinfer.bundle.engine_report import EngineReport
from ganinfer.bundle.large_onnx import LargeOnnx
from ganinfer.bundle.manifest import Engine, Precision
from ganinfer.errors import ConfigError, ExportError, missing_extra
from ganinfer.files import sha256_bytes
from ganinfer.host import kept
from ganinfer.host.machine import gpu_present

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuiltEngine:
    """A plan, its line in the manifest and what is inside it.

    seconds: that it took to build; None if it was found by its key.
    """

    plan: bytes
    entry: Engine
    report: EngineReport
    seconds: float | None


@dataclass(frozen=True)
class _Parsed:
    """A network; its weights live in the parser."""

    builder: Any
    network: Any
    parser: Any


def pick_product(
    wanted: str, targets: Sequence[str] = (), precisions: Sequence[str] = ()
) -> Product:
    """The product to build with.

    Args:
        wanted: "tensorrt", "tensorrt_rtx", or "auto": tensorrt where it and a GPU are there and
            no other target is named, else tensorrt_rtx.
        targets: what will be built for; the product's default if none is named.
        precisions: what will be built in.

    Raises:
        ConfigError: the product is unknown. ExportError: a target is, or lacks a precision.
        MissingExtra: it is not installed.
    """
    if wanted not in ("auto", "tensorrt", "tensorrt_rtx"):
        raise ConfigError(f"--trt-product {wanted!r}: expected auto, tensorrt or tensorrt_rtx")
    here = set(targets) <= {CURRENT} and gpu_present()
    if wanted == "auto" and here and importlib.util.find_spec("tensorrt"):
        wanted = "tensorrt"
    product: Product = "tensorrt" if wanted == "tensorrt" else "tensorrt_rtx"
    if not importlib.util.find_spec(product):
        raise missing_extra(product)
    for target in targets or default_targets(product):
        aim = find_target(importlib.import_module(product), product, target)
        for precision in precisions:
            check_precision(aim.name, precision)
    return product


def build_engine(
    onnx_model: bytes,
    *,
    product: Product,
    target: str,
    precision: Precision,
    profiles: Sequence[Profile] = DEFAULT_PROFILES,
    cache: Path | None = None,
) -> BuiltEngine:
    """Compile an ONNX file, or find the engine that was made of it before.

    Args:
        onnx_model: inputs z (N, Z) and perhaps y (N,), with a dynamic batch.
        product: which library compiles, and later runs, the plan.
        target: see `ganexport.engines.targets`.
        precision: of the ONNX file, for the record.
        profiles: smallest, likeliest and largest batch of each.
        cache: folder of engines by key and of timings; the user's cache folder by default.

    Returns:
        The plan, with status "pending": it has not run yet.

    Raises:
        ExportError: the library refuses the graph or the target, with its own words.
        MissingExtra: the library is not installed.
    """
    try:
        trt = importlib.import_module(product)
    except ModuleNotFoundError as error:
        raise missing_extra(product, error) from None
    aim = find_target(trt, product, target)
    check_precision(aim.name, precision)
    sha = sha256_bytes(onnx_model)
    key = engine_key(sha, product, trt.__version__, aim.name, precision, profiles)
    entry = Engine(
        path=f"engines/{key}.plan",
        report=f"engines/{key}.json",
        key=key,
        onnx_sha256=sha,
        product=product,
        version=trt.__version__,
        platform=host_platform(),
        target=aim.name,
        precision=precision,
        profiles=[list(profile) for profile in profiles],
        status="pending",
    )
    folder = cache or user_cache_path("ganpipe") / "engines"
    file = folder / f"{key}.plan"
    parsed = _parse(trt, onnx_model)
    memory_file = folder / f"{key}.memory"
    plan, memory, seconds = kept.read(file), kept.read(memory_file), None
    if plan is None or memory is None:
        start = time.perf_counter()
        timings = None  # tensorrt_rtx times nothing
        if product == "tensorrt":
            timings = folder / f"timings-{trt.__version__}-{compute_capability(product)}"
        plan, device_memory_bytes = _compile(trt, parsed, onnx_model, aim, profiles, timings)
        seconds = time.perf_counter() - start
        memory = json.dumps(device_memory_bytes).encode()
        kept.write(file, plan)
        kept.write(memory_file, memory)
    report = of_network(parsed.network, onnx_model, plan, json.loads(memory))
    return BuiltEngine(plan, entry, report, seconds)


def _parse(trt: ModuleType, onnx_model: bytes) -> _Parsed:
    logger = product_logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not _read(parser, onnx_model):
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        words = explain_parser(errors, onnx_model)
        raise ExportError(f"{trt.__name__} {trt.__version__} cannot take the graph: {words}")
    return _Parsed(builder, network, parser)


def _read(parser: Any, onnx_model: bytes) -> bool:
    """Does the parser take a graph? It keeps the weights, also those that lay beside."""
    if not isinstance(onnx_model, LargeOnnx):
        return bool(parser.parse(onnx_model))
    with onnx_model.on_disk() as file:
        return bool(parser.parse_from_file(str(file)))


def _compile(
    trt: ModuleType,
    parsed: _Parsed,
    onnx_model: bytes,
    target: Target,
    profiles: Sequence[Profile],
    timings: Path | None,
) -> tuple[bytes, int | None]:
    """A plan, and the memory of one of its contexts, if the builder tells."""
    builder, network = parsed.builder, parsed.network
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # fp32 means fp32
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # what its report is read from
    if trt.__name__ == "tensorrt_rtx":
        # What allocates memory as it runs cannot be captured as a CUDA graph.
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    target.configure(config)
    if timings is not None:
        use_timings(config, timings)
    for profile in profiles:
        shapes = builder.create_optimization_profile()
        for index in range(network.num_inputs):
            tensor = network.get_input(index)
            rest = tuple(tensor.shape)[1:]
            shapes.set_shape(tensor.name, *((batch, *rest) for batch in profile))
        config.add_optimization_profile(shapes)
    logger = product_logger(trt)
    logger.messages.clear()
    logger.activation_bytes.clear()
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        words = explain_builder(logger.messages, onnx_model)
        raise ExportError(
            f"{trt.__name__} {trt.__version__} cannot build for {target.name}: {words}"
        )
    if timings is not None:
        keep_timings(config, timings)
    return bytes(plan), max(logger.activation_bytes, default=None)


def engine_key(
    onnx_sha256: str,
    product: str,
    version: str,
    target: str,
    precision: str,
    profiles: Sequence[Profile],
) -> str:
    """The sha256 of all that decides what an engine is; its bytes differ from build to build."""
    flags = ["STRONGLY_TYPED", "-TF32", "DETAILED"]
    if product == "tensorrt_rtx":
        flags.append("REQUIRE_USER_ALLOCATION")
    parts = {
        "onnx_sha256": onnx_sha256,
        "product": product,
        "version": version,
        "platform": host_platform(),
        "target": target,
        "precision": precision,
        "profiles": [list(profile) for profile in profiles],
        "flags": flags,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
