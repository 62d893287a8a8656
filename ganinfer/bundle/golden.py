"""Is the shipped generator the trained one? Golden images, in uint8 steps.

They are what torch gives for a few seeds; every host that opens a bundle checks its own against
them, within limits that the export worked out for this network.
"""

import math

import numpy as np

from ganinfer.bundle.archive import Bundle
from ganinfer.bundle.manifest import Golden, PixelLimits, Precision
from ganinfer.drawing.images import Images
from ganinfer.drawing.inputs import Inputs, draw_inputs
from ganinfer.errors import BundleError, RequestError
from ganinfer.files import npy_header

# Of bundles whose manifest says nothing; newer ones hold limits of their own network.
_DEFAULT_LIMITS: dict[Precision, PixelLimits] = {
    "fp32": PixelLimits(max_steps=1, max_share=1e-4),
    "fp16": PixelLimits(max_steps=2, min_psnr_db=55.0),
    "bf16": PixelLimits(max_steps=16, min_psnr_db=40.0),
    "int8": PixelLimits(max_steps=64, min_psnr_db=35.0),
    "fp8": PixelLimits(max_steps=96, min_psnr_db=35.0),
}


def pixel_differences(found: Images, expected: Images) -> tuple[int, float, float]:
    """(largest step, share of pixels that differ, PSNR in dB) of two uint8 arrays of one shape."""
    steps = np.abs(found.astype(np.int16) - expected.astype(np.int16))
    mean_square = float(np.mean(steps.astype(np.float64) ** 2))
    psnr = math.inf if mean_square == 0 else 10 * math.log10(255**2 / mean_square)
    return int(steps.max()), float(np.mean(steps != 0)), psnr


def limits_of(golden: Golden, precision: str) -> PixelLimits:
    """What a bundle lets a host do to its golden images in a precision."""
    return {**_DEFAULT_LIMITS, **golden.limits}[precision]  # type: ignore[index]


def pixel_failure(found: Images, expected: Images, limits: PixelLimits) -> str | None:
    """Which limit is passed, in words; None when all hold.

    A bound on a share is widened by three standard deviations of so few pixels.
    """
    if found.shape != expected.shape:
        return f"shape {found.shape}, expected {expected.shape}"
    max_steps, share, psnr = pixel_differences(found, expected)
    if limits.max_steps is not None and max_steps > limits.max_steps:
        return f"{max_steps} uint8 steps off, at most {limits.max_steps} expected"
    if limits.min_psnr_db is not None and psnr < limits.min_psnr_db:
        return f"PSNR {psnr:.1f} dB, at least {limits.min_psnr_db:.1f} expected"
    if limits.max_share is not None:
        allowed = limits.max_share + (3 * math.sqrt(limits.max_share * found.size) + 1) / found.size
        if share > allowed:
            return f"{share:.3%} of pixels differ, at most {allowed:.3%} expected"
    return None


def read_golden(bundle: Bundle) -> tuple[Inputs, Images]:
    """What a bundle's graph is given, and the images uint8 (G, H, W, C) that it must give."""
    golden, model = bundle.manifest.golden, bundle.manifest.model
    shape = model.image_shape(len(golden.seeds))
    header, data = npy_header(shape), bundle.read(golden.path)
    # The one header that can be right is compared, not parsed.
    if not data.startswith(header) or len(data) != len(header) + math.prod(shape):
        raise BundleError(
            f"{bundle.path}: {golden.path}: not an .npy file of uint8 {shape}, as the manifest"
            " says; export it again"
        )
    images = np.frombuffer(data, np.uint8, offset=len(header)).reshape(shape)
    labels, count = golden.labels, len(golden.seeds)
    if (
        (labels is None) != (not model.classes)
        or (labels is not None and (len(labels) != count or max(labels) >= len(model.classes)))
        or len(golden.truncations) != count
    ):
        raise BundleError(f"{bundle.path}: golden labels do not fit the model; export it again")
    try:
        parts = [
            draw_inputs(
                model, [seed], None if labels is None else np.array([labels[n]]), truncation
            )
            for n, (seed, truncation) in enumerate(
                zip(golden.seeds, golden.truncations, strict=True)
            )
        ]
    except RequestError as error:
        raise BundleError(f"{bundle.path}: golden inputs: {error}; export it again") from None
    return Inputs.joined(parts), images
