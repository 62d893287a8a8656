"""What is taken out of a bundle, and in which format; light, so that `gan --help` may read it."""

from dataclasses import dataclass
from typing import Annotated

from ganinfer.errors import ConfigError
from ganinfer.options import Option

PIXELS = ("uint8", "float")
LATENTS = ("z", "mapped", "seed", "draw")
FORMATS = ("onnx", "ort", "openvino")


@dataclass(frozen=True, kw_only=True)
class ExtractOptions:
    """Options of `extract`; those of `gan extract`, too.

    Attributes:
        precision: which of the bundle's graphs.
        pixels: "uint8": images (N, H, W, C) as the sampler gives them; "float": float32
            (N, C, H, W), nominally on [-1, 1], neither clipped nor rounded.
        latents: what the graph takes. "z": z, and what else the generator takes, but no styles;
            "mapped": a StyleGAN's styles w float32 (N, L, D) alone, as `Sampler.mapped` gives
            them; "seed": seeds, see `ganexport.extraction.seeds`; "draw": seeds, and it gives what
            a generator takes, not images.
        truncation_mode: of "seed" and "draw": how they truncate; the model's first by default.
        format: "onnx"; "ort", onnxruntime's own; "openvino", its IR, an .xml with a .bin beside.

    Raises:
        ConfigError: there is no such option, or two do not go together.
    """

    precision: Annotated[
        str, Option(help="Precision of the graph: fp32, or another that the bundle holds.")
    ] = "fp32"
    pixels: Annotated[
        str,
        Option(help="What it gives: uint8 (N, H, W, C), or float (N, C, H, W) before rounding."),
    ] = "uint8"
    latents: Annotated[
        str,
        Option(
            help="What it takes: z; mapped: a StyleGAN's styles w; seed; draw: seeds to z alone."
        ),
    ] = "z"
    truncation_mode: Annotated[
        str | None,
        Option(help="How seed and draw truncate: one of the bundle's modes, its first by default."),
    ] = None
    format: Annotated[
        str,
        Option(help="Format: onnx; ort, of onnxruntime's mobile builds; openvino, .xml and .bin."),
    ] = "onnx"

    def __post_init__(self) -> None:
        for name, value, known in (
            ("pixels", self.pixels, PIXELS),
            ("latents", self.latents, LATENTS),
            ("format", self.format, FORMATS),
        ):
            if value not in known:
                expected = f"{', '.join(known[:-1])} or {known[-1]}"
                raise ConfigError(f"{name} {value!r}: expected {expected}")
        if self.truncation_mode is not None and not self.from_seeds:
            raise ConfigError("truncation mode: it goes with latents seed or draw")

    @property
    def from_seeds(self) -> bool:
        """Does the graph draw?"""
        return self.latents in ("seed", "draw")
