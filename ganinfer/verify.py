"""Checks a bundle on the host at hand, without torch: its bytes, its golden images, its witness."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ganinfer.backends._open import precisions_of
from ganinfer.backends.onnxruntime import FeatureNetwork
from ganinfer.bundle.archive import Bundle
from ganinfer.bundle.manifest import GateResult, gate_result
from ganinfer.bundle.signature import PublicKey
from ganinfer.bundle.witness import Witness, paired_gates
from ganinfer.drawing.latents import draw_labels
from ganinfer.errors import BackendUnavailable, ParityError
from ganinfer.progress import Progress
from ganinfer.sampler import Sampler

_BATCH = 100


def verify_host(
    path: Path,
    *,
    backend: str | None = None,
    device: str = "auto",
    public_key: PublicKey | None = None,
    progress: Progress | None = None,
) -> list[GateResult]:
    """Check what a bundle gives on this host.

    Args:
        path: the bundle.
        backend: the one to check; by default onnxruntime, openvino if it is installed, and
            tensorrt if there are engines.
        device: where it runs.
        public_key: of whoever must have signed it.
        progress: called with (what is being done, images done, images in all).

    Returns:
        One result a gate; what cannot run here passes only if it is an engine or in bfloat16, and
        was not asked for, with the reason in its detail.

    Raises:
        BundleError: a file is damaged, missing, not declared, or not signed by that key.
        ConfigError: the key cannot be used.
        BackendUnavailable: the bundle holds nothing for the backend that was asked for.
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
        witness, files = Witness.load(bundle), bundle.manifest.witness
        num_golden = len(bundle.manifest.golden.seeds)
        extractor = bundle.read_onnx(files.extractor) if files else b""
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
            detail = f"not run here: {error}"
            gates.append(_golden(artifact, 0, passed=pending, detail=detail))
            continue
        except ParityError as error:
            gates.append(_golden(artifact, num_golden, passed=False, detail=str(error)))
            continue
        with sampler:
            gates.append(_golden(artifact, num_golden, passed=True))
            if witness is not None:
                gates += _witnessed(sampler, witness, extractor, artifact, progress)
    return gates


def _witnessed(
    sampler: Sampler,
    witness: Witness,
    extractor: bytes,
    artifact: str,
    progress: Progress | None,
) -> list[GateResult]:
    """The paired gates of a sampler's images for the witness's seeds."""
    see, num_classes = FeatureNetwork(extractor), len(sampler.classes)
    labels = draw_labels(range(witness.num_images), num_classes) if num_classes else None
    found = []
    for start in range(0, witness.num_images, _BATCH):
        rows = slice(start, min(start + _BATCH, witness.num_images))
        images = sampler.sample(
            seeds=range(rows.start, rows.stop), labels=None if labels is None else labels[rows]
        )
        found.append(see(images))
        if progress:
            progress(artifact, rows.stop, witness.num_images)
    features = np.concatenate(found)
    return paired_gates(witness, features, labels, artifact, sampler.classes)


def _golden(artifact: str, num_images: int, *, passed: bool, detail: str = "") -> GateResult:
    failed = float(not passed)
    return gate_result(
        artifact, "golden images", failed, "== 0", passed, detail, num_images=num_images
    )
