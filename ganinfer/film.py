"""Moving pictures: ways from seed to seed, and the files that hold them."""

import importlib.util
import io
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ganinfer.drawing.arguments import Labels, labels_in_turn
from ganinfer.drawing.images import Images, grid, opaque, save_png, to_pil, visible
from ganinfer.drawing.latents import draw_labels, seed_array
from ganinfer.drawing.reading import AnyArray
from ganinfer.errors import RequestError, missing_extra
from ganinfer.files import write_atomic
from ganinfer.sampler import Sampler

KINDS = ("gif", "webp", "mp4")
SUFFIXES = (*(f".{kind}" for kind in KINDS), ".png")
_LEAST_SIDE = 256  # pixels of a film's longer side; smaller images are enlarged by a whole number


def walk(
    sampler: Sampler,
    seeds: Sequence[int] | AnyArray,
    frames_per_step: int,
    *,
    loop: bool = False,
    labels: Labels = None,
    truncation: float | None = None,
    truncation_mode: str | None = None,
    space: str = "z",
) -> Iterator[Images]:
    """The way through the images of some seeds; one step of it is in memory at a time.

    Args:
        sampler: of an opened bundle.
        seeds: two or more, in the order in which they are met.
        frames_per_step: frames from a seed's image, included, to the next, excluded.
        loop: go back to the first seed at the end, instead of ending with the last one's image.
        labels: a class for all frames; or one for each step, repeated in turn: the picture jumps
            where the class changes. The first seed's own by default.
        truncation, truncation_mode: as in `Sampler.sample`.
        space: "z", or "w" of a StyleGAN, as in `Sampler.interpolate`.

    Yields:
        uint8 (H, W, C); normal latents move along the sphere, uniform ones along the line.

    Raises:
        RequestError: something that this model cannot serve.
    """
    stops = [int(seed) for seed in seed_array(seeds)]
    if len(stops) < 2 or frames_per_step < 1:
        raise RequestError(
            f"{len(stops)} seeds, {frames_per_step} frames a step: expected 2 seeds or more, and a"
            " frame or more"
        )
    if labels is None and sampler.classes:
        labels = draw_labels(stops[:1], len(sampler.classes))
    turns = [None] if labels is None else labels_in_turn(labels)
    steps = list(zip(stops, stops[1:] + stops[:1], strict=True))
    for number, (start, end) in enumerate(steps if loop else steps[:-1]):
        frames = sampler.interpolate(
            start,
            end,
            frames_per_step + 1,
            label=turns[number % len(turns)],
            truncation=truncation,
            truncation_mode=truncation_mode,
            space=space,
        )
        yield from frames[:-1]
    if not loop:
        yield frames[-1]


def save_film(path: Path, frames: Iterable[Images], *, fps: int = 30) -> None:
    """Write frames to a file, whole or not at all; small ones are enlarged.

    Args:
        path: x.gif, x.webp, x.mp4, or x.png for a strip.
        frames: uint8 (H, W, C), as `encode_film` takes them; RGBA stays transparent in x.png.
        fps: as of `encode_film`; a strip has none.

    Raises:
        RequestError: another kind of file, or speed.
        MissingExtra: an mp4, and PyAV is not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise RequestError(f"{path}: expected a name that ends in {', '.join(SUFFIXES)}")
    if suffix == ".png":
        strip = np.stack(list(frames))
        save_png(path, grid(strip, columns=len(strip)))
        return
    write_atomic(path, encode_film(frames, suffix.removeprefix("."), fps=fps))


def encode_film(frames: Iterable[Images], kind: str, *, fps: int = 30) -> bytes:
    """The bytes of a film; small images are enlarged.

    Args:
        frames: uint8 (H, W, C); at least one. RGBA stays transparent in a webp, and is laid on
            white in the others; two channels are side by side, in grey.
        kind: "gif", "webp" (lossless), or "mp4" (H.264, of the extra `video`).
        fps: frames a second, 1 to 100. A gif counts hundredths of a second and rounds.

    Raises:
        RequestError: another kind, or speed.
        MissingExtra: an mp4, and PyAV is not installed.
    """
    if kind not in KINDS:
        raise RequestError(f"film {kind!r:.40}: expected one of {', '.join(KINDS)}")
    if not 1 <= fps <= 100:
        raise RequestError(f"fps: found {fps}; expected 1 to 100")
    if not encodes(kind):
        raise missing_extra("av")
    pictures = map(_enlarged, map(visible, frames))
    if kind != "webp":
        pictures = map(opaque, pictures)
    return _mp4(pictures, fps) if kind == "mp4" else _animation(pictures, fps, kind)


def encodes(kind: str) -> bool:
    """Whether what makes this kind of film is installed; PyAV makes an mp4."""
    return kind != "mp4" or importlib.util.find_spec("av") is not None


def enlargement(height: int, width: int) -> int:
    """How many pixels of a film an image's pixel is wide and high."""
    return math.ceil(_LEAST_SIDE / max(height, width))


def _enlarged(frame: Images) -> Images:
    scale = enlargement(*frame.shape[:2])
    return frame.repeat(scale, axis=0).repeat(scale, axis=1)


def _animation(frames: Iterator[Images], fps: int, kind: str) -> bytes:
    """A gif or webp that plays for ever."""
    pictures = map(to_pil, frames)
    buffer = io.BytesIO()
    next(pictures).save(
        buffer,
        format=kind,
        save_all=True,
        append_images=pictures,
        duration=round(100 / fps) * 10 if kind == "gif" else round(1000 / fps),
        loop=0,
        lossless=True,  # of a webp
    )
    return buffer.getvalue()


def _mp4(frames: Iterator[Images], fps: int) -> bytes:
    """H.264 as every player takes it: even sides, and colours at half the resolution."""
    import av

    first = next(frames)
    height, width = first.shape[0] + first.shape[0] % 2, first.shape[1] + first.shape[1] % 2
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "16"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in itertools.chain([first], frames):
            missing = [(0, height - frame.shape[0]), (0, width - frame.shape[1]), (0, 0)]
            whole = np.pad(frame, missing, mode="edge")
            colour = np.ascontiguousarray(np.broadcast_to(whole, (height, width, 3)))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(colour, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()
