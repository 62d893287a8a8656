"""Checks a bundle without torch, on the host at hand or on a server.

Its bytes, its golden images, its witness.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np

from ganinfer.backends._base import pick_precision
from ganinfer.backends._open import precisions_of
from ganinfer.backends.onnxruntime import FeatureNetwork
from ganinfer.bundle.archive import Bundle
from ganinfer.bundle.golden import limits_of, pixel_failure, read_golden
from ganinfer.bundle.manifest import GateResult, gate_result
from ganinfer.bundle.signature import PublicKey
from ganinfer.bundle.witness import Witness, paired_gates
from ganinfer.drawing.images import Images
from ganinfer.drawing.latents import draw_labels
from ganinfer.errors import BackendUnavailable, ParityError
from ganinfer.open_inference import served_model
from ganinfer.progress import Progress
from ganinfer.sampler import Sampler

_BATCH = 100


def verify_host(
    path: Path,
    *,
    backend: str | None = None,
    device: str = "auto",
    require: Sequence[str] = (),
    public_key: PublicKey | None = None,
    progress: Progress | None = None,
) -> list[GateResult]:
    """Check what a bundle gives on this host.

    Args:
        path: the bundle.
        backend: the one to check; by default onnxruntime, openvino if it is installed, and
            tensorrt if there are engines.
        device: where it runs.
        require: backends, as "tensorrt", or one of their precisions, as "tensorrt:fp16", that must
            be checked; else what cannot run here is no failure if it is an engine or in bfloat16.
        public_key: of whoever must have signed it.
        progress: called with (what is being done, images done, images in all).

    Returns:
        One result a gate; what cannot run here and need not is `skipped`, the reason in its detail.

    Raises:
        BundleError: a file is damaged, missing, not declared, or not signed by that key.
        ConfigError: the key cannot be used.
        BackendUnavailable: the bundle holds nothing for the backend that was asked for, or nothing
            that is required.
    """
    with Bundle(path, public_key=public_key) as bundle:
        names = [backend] if backend else ["onnxruntime", "tensorrt"]
        if backend is None and find_spec("openvino") and device in ("auto", "cpu"):
            names.insert(1, "openvino")
        wanted = [(name, p) for name in names for p in precisions_of(bundle, name)]
        if not wanted:
            raise BackendUnavailable(
                f"{path}: holds nothing that {backend} runs, so there is nothing to check; for"
                " TensorRT export it with --trt"
            )
        _check_required(path, require, wanted)
        seen = _Seen.of(bundle)
        num_golden = len(bundle.manifest.golden.seeds)
    gates = []
    for name, precision in wanted:
        artifact = f"{name} {precision}"
        try:
            sampler = Sampler(
                path,
                backend=name,
                device=device,
                precision=precision,
                allow_unverified=True,
                public_key=public_key,
            )
        except BackendUnavailable as error:
            # A host without a GPU says nothing about an engine, and few runtimes have bfloat16.
            # Any other ONNX file runs anywhere.
            pending = backend is None and (name == "tensorrt" or precision == "bf16")
            must = name in require or f"{name}:{precision}" in require
            detail = f"not run here: {error}"
            gates.append(_golden(artifact, 0, passed=pending and not must, detail=detail))
            continue
        except ParityError as error:
            gates.append(_golden(artifact, num_golden, passed=False, detail=str(error)))
            continue
        with sampler:
            gates.append(_golden(artifact, num_golden, passed=True))
            if seen is not None:
                gates += seen.gates(sampler.sample, artifact, progress)
    return gates


def _check_required(path: Path, require: Sequence[str], wanted: list[tuple[str, str]]) -> None:
    """Refuse to require what nothing of the bundle is checked by."""
    known = {name for name, _ in wanted} | {f"{name}:{precision}" for name, precision in wanted}
    if unknown := [asked for asked in require if asked not in known]:
        raise BackendUnavailable(
            f"{path}: {unknown[0]} is required, and nothing is there to be checked by it; expected"
            f" one of {', '.join(sorted(known))}"
        )


def verify_server(
    path: Path,
    url: str,
    *,
    name: str | None = None,
    precision: str = "fp32",
    api_key: str | None = None,
    public_key: PublicKey | None = None,
    progress: Progress | None = None,
) -> list[GateResult]:
    """Check what a server gives, over the Open Inference Protocol; see `ganinfer.open_inference`.

    Args:
        path: the bundle that it should serve.
        url: of the server, http://host:port or grpc://host:port.
        name: of its model; by default the bundle's file name, without .gan.
        precision: in which it serves; the bundle has limits for each.
        api_key: that the server asks for, if it does.
        public_key: of whoever must have signed the bundle.
        progress: called with (what is being done, images done, images in all).

    Returns:
        One result a gate.

    Raises:
        BundleError: a file is damaged, missing, not declared, or not signed by that key.
        BackendUnavailable: the server does not answer, refuses, or has another model; or the bundle
            holds no such precision.
        ConfigError: the key cannot be used. RequestError: that is no address.
    """
    with Bundle(path, public_key=public_key) as bundle:
        manifest = bundle.manifest
        pick_precision(bundle, [g.precision for g in manifest.graphs], precision, [])
        (_, expected), seen = read_golden(bundle), _Seen.of(bundle)
    served = served_model(url, name or bundle.name, manifest.model.shape, api_key=api_key)
    golden, artifact = manifest.golden, f"{served.url} {served.name} {precision}"
    images = np.empty_like(expected)
    for truncation in dict.fromkeys(golden.truncations):
        rows = [n for n, asked in enumerate(golden.truncations) if asked == truncation]
        images[rows] = served.images(
            [golden.seeds[n] for n in rows],
            labels=None if golden.labels is None else [golden.labels[n] for n in rows],
            truncation=truncation,
        )
    failure = pixel_failure(images, expected, limits_of(golden, precision))
    gates = [_golden(artifact, len(images), passed=failure is None, detail=failure or "")]
    if seen is not None:
        gates += seen.gates(served.images, artifact, progress)
    return gates


class _Draw(Protocol):
    def __call__(self, *, seeds: range) -> Images:
        """Images uint8 (N, H, W, C) of N seeds."""


@dataclass(frozen=True)
class _Seen:
    """A bundle's witness, and the network that it sees images with."""

    witness: Witness
    see: FeatureNetwork
    classes: list[str]

    @classmethod
    def of(cls, bundle: Bundle) -> "_Seen | None":
        """None if it has no witness."""
        witness, files = Witness.load(bundle), bundle.manifest.witness
        if witness is None or files is None:
            return None
        see = FeatureNetwork(bundle.read_onnx(files.extractor))
        return cls(witness, see, bundle.manifest.model.classes)

    def gates(self, draw: "_Draw", artifact: str, progress: Progress | None) -> list[GateResult]:
        """The paired gates of the images that are drawn for the witness's seeds.

        draw: gives images, each of the class that its seed draws.
        """
        count, found = self.witness.num_images, []
        for start in range(0, count, _BATCH):
            stop = min(start + _BATCH, count)
            found.append(self.see(draw(seeds=range(start, stop))))
            if progress:
                progress(artifact, stop, count)
        labels = draw_labels(range(count), len(self.classes)) if self.classes else None
        features = np.concatenate(found)
        return paired_gates(self.witness, features, labels, artifact, self.classes)


def _golden(artifact: str, num_images: int, *, passed: bool, detail: str = "") -> GateResult:
    failed = float(not passed)
    return gate_result(
        artifact, "golden images", failed, "== 0", passed, detail, num_images=num_images
    )
