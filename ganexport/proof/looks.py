"""Do the images lie on the scale, and have their channels in the order, that a bundle has them in?

All gates compare a network with itself: one that gives [0, 1] passes each of them, and ships
pictures that are washed out. So some images are looked at first.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ganexport.proof.reference import reference_of
from ganexport.subjects.subject import Subject
from ganinfer.drawing.images import Images, grid, to_uint8
from gantrain.data.dataset import Dataset
from gantrain.data.opening import open_dataset

LARGEST = 8.0  # what lies farther from [-1, 1] is on another scale
MAX_SHARE_OUTSIDE = 0.2  # of values that [-1, 1] would cut off; more is another scale
LEAST_SPREAD = 0.25  # of what the data, or [-1, 1], has from end to end
_ROUNDING = 1e-3
_NUM_REAL = 512
_SHOWN = 8  # images in a row of the picture
_MOST_VALUES = 200_000  # of a channel
# Mean distance of the values of red and blue, on [-1, 1], that another order must mend.
_LEAST_SWAP = 0.05
_AS_THEY_ARE = "--set output_range=-1:1 takes them for what they are"

Floats = NDArray[np.float64]  # (N, C, H, W)


@dataclass(frozen=True)
class Looks:
    """What was seen in the first images of a generator.

    Attributes:
        refusal: why it is not exported, with what helps; None if it may be.
        warnings: what is doubtful, in words.
        picture: of that, uint8 (H, W, C); None if nothing is doubtful.
        rows: what its rows are, in words.
    """

    refusal: str | None = None
    warnings: tuple[str, ...] = ()
    picture: Images | None = None
    rows: str = ""


@lru_cache(maxsize=1)
def look_at(subject: Subject, data: Path | None) -> Looks:
    """Look at the images that the numeric gates look at, 512 of a network that is fast.

    Args:
        subject: what is to be exported.
        data: that it is compared with, prepared or shards; by default what it was trained on, if
            that is still there.

    Raises:
        DataError: the data that was named cannot be used.
    """
    images = reference_of(subject).images
    real = _real_images(subject, data)
    doubt = _scale(subject, images, real)
    if doubt is None and real is not None:
        doubt = _order(subject, images, real)
    return doubt or Looks()


def _real_images(subject: Subject, data: Path | None) -> Floats | None:
    """Some of the data's, where there are any of as many channels."""
    place = data or subject.data
    if place is None or (data is None and not place.exists()):
        return None
    resolution = subject.model.resolution
    dataset: Dataset = open_dataset(place, resolution=resolution, labelled=subject.labelled)
    if dataset.channels != subject.model.channels:
        return None
    count = min(_NUM_REAL, len(dataset))
    rows = np.sort(np.random.default_rng(0).choice(len(dataset), count, replace=False))
    return dataset.floats(rows).numpy().astype(np.float64)


def _scale(subject: Subject, images: Floats, real: Floats | None) -> Looks | None:
    """Is it another one than [-1, 1]?"""
    least, largest = float(images.min()), float(images.max())
    found = f"{subject.where}: values from {least:.3g} to {largest:.3g} over {len(images)} images"
    outside = float((np.abs(images) > 1.05).mean())
    bright = real is not None and float(real.min()) >= 0
    if least >= -_ROUNDING and largest <= 1 + _ROUNDING and not bright:
        never = f"{found}: never below 0, as of a sigmoid, where [-1, 1] is expected"
        remedy = "--set output_range=0:1 scales them in the graph"
        return _doubt(subject, never, remedy, images, 2 * images - 1)
    if least >= -0.5 and largest > LARGEST:
        bytes_ = f"{found}: as of bytes, where [-1, 1] is expected"
        remedy = "--set output_range=0:255 scales them in the graph"
        return _doubt(subject, bytes_, remedy, images, images / 127.5 - 1)
    if max(-least, largest) > LARGEST or outside > MAX_SHARE_OUTSIDE:
        cut = f"{found}: {outside:.0%} of them lie outside [-1, 1] and would be cut off"
        scaled = images / max(-least, largest)
        remedy = "--set output_range=imagenet if they are normalised so, or scale them in a wrapper"
        return _doubt(subject, cut, remedy, images, scaled)
    low, high = np.quantile(_some(images), (0.005, 0.995))
    ends = (-1.0, 1.0) if real is None else np.quantile(_some(real), (0.005, 0.995))
    if high - low < LEAST_SPREAD * (ends[1] - ends[0]):
        of = "[-1, 1]" if real is None else f"the data's {ends[0]:.2g} to {ends[1]:.2g}"
        narrow = (
            f"{found}, 99% of them from {low:.2g} to {high:.2g}: they hardly use {of}; is it"
            " trained, and are they on this scale?"
        )
        stretched = (images - low) / max(high - low, 1e-9) * 2 - 1
        below = "above as they would ship, below stretched to [-1, 1]"
        return Looks(None, (narrow,), _picture(images, stretched), below)
    return None


def _doubt(subject: Subject, words: str, remedy: str, images: Floats, scaled: Floats) -> Looks:
    """Of a scale that is said, or of a run, a warning; else the reason to refuse it."""
    picture, rows = _picture(images, scaled), "above as they would ship, below scaled to [-1, 1]"
    if subject.scale_known:
        return Looks(None, (words,), picture, rows)
    return Looks(f"{words}; {remedy}; {_AS_THEY_ARE}", (), picture, rows)


def _order(subject: Subject, images: Floats, real: Floats) -> Looks | None:
    """Do red and blue look swapped against the data?"""
    if images.shape[1] != 3:
        return None
    (red, blue), (true_red, true_blue) = (
        [np.quantile(_some(of[:, channel]), np.linspace(0.01, 0.99, 64)) for channel in (0, 2)]
        for of in (images, real)
    )
    as_it_is = float(np.abs(red - true_red).mean() + np.abs(blue - true_blue).mean()) / 2
    swapped = float(np.abs(red - true_blue).mean() + np.abs(blue - true_red).mean()) / 2
    if as_it_is - swapped < _LEAST_SWAP or swapped > as_it_is / 2:
        return None
    words = (
        f"{subject.where}: red and blue look swapped: their values differ from the data's by"
        f" {as_it_is:.2g} on [-1, 1], and by {swapped:.2g} the other way round; if it gives BGR, as"
        " of OpenCV: --set channel_order=bgr"
    )
    some = real[:: max(1, len(real) // _SHOWN)]
    rows = "first as they would ship, then with red and blue swapped, then the data"
    return Looks(None, (words,), _picture(images, images[:, ::-1], some), rows)


def _picture(*rows: Floats) -> Images:
    """Some images of each, a row each."""
    columns = min(_SHOWN, *map(len, rows))
    shown = np.concatenate([row[:columns] for row in rows]).astype(np.float32)
    return grid(to_uint8(shown).transpose(0, 2, 3, 1), columns=columns)


def _some(values: Floats) -> Floats:
    """Of many values as many as are soon sorted."""
    flat = values.reshape(-1)
    return flat[:: max(1, flat.size // _MOST_VALUES)]
