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
from typing import Any, Literal

from platformdirs import user_cache_path

from ganexport.engines.refusals import explain_builder, explain_parser
from ganexport.engines.report import of_network
from ganinfer.backends import gpu_present
from ganinfer.backends.tensorrt import compute_capability, host_platform, product_logger
from ganinfer.bundle import Engine, Precision
from ganinfer.engine_report import EngineReport
from ganinfer.errors import BackendUnavailable, ExportError, missing_extra
from ganinfer.files import sha256_bytes, write_atomic

Product = Literal["tensorrt", "tensorrt_rtx"]
Profile = tuple[int, int, int]  # smallest, likeliest and largest batch

log = logging.getLogger(__name__)

PORTABLE = "portable"
CURRENT = "current"
_FIRST_WITH_FLOAT8 = 89
DEFAULT_PROFILES: tuple[Profile, ...] = ((1, 64, 256),)


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
        ExportError: the product or a target is unknown, or a target lacks a precision.
        MissingExtra: it is not installed.
    """
    if wanted not in ("auto", "tensorrt", "tensorrt_rtx"):
        raise ExportError(f"--trt-product {wanted!r}: expected auto, tensorrt or tensorrt_rtx")
    here = set(targets) <= {CURRENT} and gpu_present()
    if wanted == "auto" and here and importlib.util.find_spec("tensorrt"):
        wanted = "tensorrt"
    product: Product = "tensorrt" if wanted == "tensorrt" else "tensorrt_rtx"
    if not importlib.util.find_spec(product):
        raise missing_extra(product)
    for target in targets:
        named, _ = _capability(importlib.import_module(product), product, target)
        for precision in precisions:
            _check_precision(named, precision)
    return product


def default_targets(product: Product) -> list[str]:
    """What is built for when no target is named."""
    return [CURRENT] if product == "tensorrt" else [PORTABLE]


def check_profiles(profiles: Sequence[Profile]) -> None:
    """Refuse batches that no engine can have.

    Raises:
        ExportError: a profile does not rise from 1 or more, or is there twice, or there is none.
    """
    if not profiles:
        raise ExportError("--profile: expected at least one, as in 1:64:256")
    for profile in profiles:
        if len(profile) != 3 or not 1 <= profile[0] <= profile[1] <= profile[2]:
            raise ExportError(
                f"--profile {':'.join(map(str, profile))}: expected smallest:likeliest:largest"
                " batch, none below 1 and each at least the one before"
            )
        if profiles.count(profile) > 1:
            raise ExportError(
                f"--profile {':'.join(map(str, profile))}: given twice; once is enough"
            )


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
        target: "current" (the GPU that is here), "portable", or "sm<xy>" such as "sm89".
        precision: of the ONNX file, for the record.
        profiles: smallest, likeliest and largest batch of each.
        cache: folder of engines by key; the user's cache folder by default.

    Returns:
        The plan, with status "pending": it has not run yet.

    Raises:
        ExportError: the library refuses the graph or the target, with its own words.
        MissingExtra: the library is not installed.
    """
    try:
        trt = importlib.import_module(product)
    except ModuleNotFoundError:
        raise missing_extra(product) from None
    target, capability = _capability(trt, product, target)
    _check_precision(target, precision)
    sha = sha256_bytes(onnx_model)
    key = engine_key(sha, product, trt.__version__, target, precision, profiles)
    entry = Engine(
        path=f"engines/{key}.plan",
        report=f"engines/{key}.json",
        key=key,
        onnx_sha256=sha,
        product=product,
        version=trt.__version__,
        platform=host_platform(),
        target=target,
        precision=precision,
        profiles=[list(profile) for profile in profiles],
        status="pending",
    )
    file = (cache or user_cache_path("ganpipe") / "engines") / f"{key}.plan"
    parsed = _parse(trt, onnx_model)
    plan, seconds = _kept(file), None
    if plan is None:
        start = time.perf_counter()
        plan = _compile(trt, parsed, onnx_model, target, capability, profiles)
        seconds = time.perf_counter() - start
        _keep(file, plan)
    return BuiltEngine(plan, entry, of_network(parsed.network, onnx_model, plan), seconds)


def _parse(trt: ModuleType, onnx_model: bytes) -> _Parsed:
    logger = product_logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(onnx_model):
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        words = explain_parser(errors, onnx_model)
        raise ExportError(f"{trt.__name__} {trt.__version__} cannot take the graph: {words}")
    return _Parsed(builder, network, parser)


def _compile(
    trt: ModuleType,
    parsed: _Parsed,
    onnx_model: bytes,
    target: str,
    capability: Any,
    profiles: Sequence[Profile],
) -> bytes:
    builder, network = parsed.builder, parsed.network
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # fp32 means fp32
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # what its report is read from
    if capability is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(capability, 0)
    for profile in profiles:
        shapes = builder.create_optimization_profile()
        for index in range(network.num_inputs):
            tensor = network.get_input(index)
            rest = tuple(tensor.shape)[1:]
            shapes.set_shape(tensor.name, *((batch, *rest) for batch in profile))
        config.add_optimization_profile(shapes)
    logger = product_logger(trt)
    logger.messages.clear()
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        words = explain_builder(logger.messages, onnx_model)
        raise ExportError(f"{trt.__name__} {trt.__version__} cannot build for {target}: {words}")
    return bytes(plan)


def _kept(file: Path) -> bytes | None:
    """The plan in a file of the cache, if it is whole: its sha256 stands before it."""
    try:
        data = file.read_bytes()
    except OSError:
        return None
    digest, plan = data[:64], data[64:]
    return plan if sha256_bytes(plan).encode() == digest else None


def _keep(file: Path, plan: bytes) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, sha256_bytes(plan).encode() + plan)
    except OSError as error:
        log.warning("%s: the engine is not kept for the next time (%s)", file, error)


def engine_key(
    onnx_sha256: str,
    product: str,
    version: str,
    target: str,
    precision: str,
    profiles: Sequence[Profile],
) -> str:
    """The sha256 of all that decides what an engine is; its bytes differ from build to build."""
    parts = {
        "onnx_sha256": onnx_sha256,
        "product": product,
        "version": version,
        "platform": host_platform(),
        "target": target,
        "precision": precision,
        "profiles": [list(profile) for profile in profiles],
        "flags": ["STRONGLY_TYPED", "-TF32", "DETAILED"],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _check_precision(target: str, precision: str) -> None:
    """Refuse float8 for a GPU that has none; a portable engine is the product's own affair."""
    number = target.removeprefix("sm")
    if precision == "fp8" and number.isdecimal() and int(number) < _FIRST_WITH_FLOAT8:
        raise ExportError(
            f"target {target}: fp8 needs sm{_FIRST_WITH_FLOAT8} or newer; leave out the target or"
            " --precision fp8"
        )


def _capability(trt: ModuleType, product: Product, target: str) -> tuple[str, Any]:
    """The target by its own name ("current" becomes "sm89", say), and what to tell the builder.

    Raises:
        ExportError: the product cannot build for it.
    """
    if target == CURRENT:
        try:
            target = compute_capability(product)
        except BackendUnavailable as reason:
            raise ExportError(f"target {CURRENT}: {reason}") from None
        if product == "tensorrt":
            return target, None  # it builds for the GPU that is here, unasked
    if product == "tensorrt":
        raise ExportError(
            f"target {target}: tensorrt builds for the GPU that is here; leave --trt-target out, or"
            " use --trt-product tensorrt_rtx"
        )
    if target == PORTABLE:
        return target, None
    known = {n.lower(): c for n, c in trt.ComputeCapability.__members__.items() if n[:2] == "SM"}
    if target not in known:
        raise ExportError(
            f"target {target}: tensorrt_rtx {trt.__version__} builds for {PORTABLE},"
            f" {', '.join(known)}"
        )
    return target, known[target]
