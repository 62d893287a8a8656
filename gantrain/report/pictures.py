"""The pictures of a report: what figures do not tell. Images uint8 (N, H, W, C)."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ganinfer.drawing.images import Images, encode_png, grid, to_uint8
from ganinfer.drawing.latents import draw_labels, draw_latents, lerp, slerp
from gantrain.data.dataset import Dataset
from gantrain.extractors._base import see
from gantrain.metrics._measured import Measured
from gantrain.metrics._neighbours import nearest_of_all
from gantrain.metrics._reference import Reference
from gantrain.runs.checkpoint import TrainedGenerator
from gantrain.runs.samples import Sheet, draw, generate

TRUNCATIONS = (0.3, 0.5, 0.7, 1.0, None)
_COLUMNS = 10


@dataclass(frozen=True)
class Picture:
    """A PNG file's bytes and what it shows; labels of rows and columns, if it has some."""

    png: bytes
    caption: str
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()

    @property
    def file(self) -> BytesIO:
        """To be opened as an image."""
        return BytesIO(self.png)


def history(run: Path, most: int = 6) -> list[Picture]:
    """The sample sheets that the run saved, from the first to the last, evenly spaced in log."""
    files = sorted(f for f in (run / "samples").glob("*.png") if f.stem.isdigit())
    chosen = np.unique(np.geomspace(1, max(len(files), 1), most).round().astype(int) - 1)
    return [
        Picture(files[n].read_bytes(), f"{int(files[n].stem) / 1000:,.0f} kimg")
        for n in chosen
        if n < len(files)
    ]


def class_grid(trained: TrainedGenerator, dataset: Dataset, device: torch.device) -> Picture:
    """Samples, a class a column where that is possible; points as dots."""
    network = trained.network
    sheet = Sheet(dataset, network.num_classes)
    truncation = trained.config.train.truncation
    fake = draw(network, sheet.seeds, sheet.labels, truncation=truncation, device=device)
    png = encode_png(sheet.picture(fake))
    if 2 <= network.num_classes <= 16:
        return Picture(png, "a class a column", columns=tuple(map(_short, trained.classes)))
    return Picture(png, "seeds 0, 1, ...")


def truncation_strip(trained: TrainedGenerator, device: torch.device) -> Picture | None:
    """The same seeds under truncation, a row each; None where the latent has none."""
    if trained.network.z_distribution != "normal":
        return None
    seeds, rows = range(_COLUMNS), []
    labels = _labels(trained, seeds)
    for truncation in TRUNCATIONS:
        rows.append(generate(trained.network, seeds, labels, truncation=truncation, device=device))
    names = tuple("none" if t is None else f"{t:g}" for t in TRUNCATIONS)
    png = encode_png(grid(np.concatenate(rows), columns=_COLUMNS))
    return Picture(png, "a seed a column; on the left: truncation of its latent", rows=names)


@torch.no_grad()
def interpolations(trained: TrainedGenerator, device: torch.device, rows: int = 5) -> Picture:
    """From one seed to another, a row each, the class kept."""
    network = trained.network
    ends = draw_latents(range(2 * rows), network.z_dim, distribution=network.z_distribution)
    way, t = slerp if network.z_distribution == "normal" else lerp, np.linspace(0, 1, _COLUMNS)
    paths = [way(a, b, t) for a, b in ends.reshape(rows, 2, -1)]
    labels = _labels(trained, range(rows))
    y = None if labels is None else torch.from_numpy(labels.repeat(_COLUMNS)).to(device)
    images = network(torch.from_numpy(np.concatenate(paths)).to(device), y).float().cpu().numpy()
    tiles = to_uint8(images).transpose(0, 2, 3, 1)
    png = encode_png(grid(tiles, columns=_COLUMNS))
    places = tuple(f"{place:.1f}" for place in t)
    return Picture(png, "each row from one seed, at 0, to another, at 1", columns=places)


def neighbours(
    trained: TrainedGenerator, reference: Reference, device: torch.device, rows: int = 8
) -> Picture:
    """Generated images, each beside its nearest training images by features."""
    labels = _labels(trained, range(rows))
    truncation = trained.config.train.truncation
    fake = generate(trained.network, range(rows), labels, truncation=truncation, device=device)
    dataset = reference.trained_on or reference.dataset
    found = _nearest(fake, reference, reference.training, _COLUMNS - 1)
    lines = []
    for image, indices in zip(fake, found, strict=True):
        lines += [image[None], np.stack([np.asarray(dataset.images[n]) for n in indices])]
    tiles = np.concatenate(lines)
    return Picture(
        encode_png(grid(tiles, columns=_COLUMNS)),
        "made: generated; 1, 2, ...: its nearest training images, nearest first",
        columns=("made", *map(str, range(1, _COLUMNS))),
    )


def _nearest(images: Images, reference: Reference, training: Measured, k: int) -> NDArray[np.int64]:
    features = see(reference.extractor, images).features.double()
    _, indices = nearest_of_all(features, training, k)
    found: NDArray[np.int64] = indices.cpu().numpy()
    return found


def _short(name: str) -> str:
    """A class's name, for a narrow column."""
    return name if len(name) <= 8 else f"{name[:7]}\u2026"


def _labels(trained: TrainedGenerator, seeds: range) -> NDArray[np.int64] | None:
    return draw_labels(seeds, len(trained.classes)) if trained.classes else None
