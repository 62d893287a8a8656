"""Features of the images of many seeds, drawn as far as they are asked for, and kept.

N images, F features.
"""

import hashlib
import importlib.metadata
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from platformdirs import user_cache_path

from ganexport.proof.reference import Reference, batches
from ganexport.subjects.subject import Subject
from ganinfer.bundle.witness import Features, Labels
from ganinfer.drawing.images import Images
from ganinfer.drawing.inputs import Inputs, draw_inputs
from ganinfer.drawing.latents import draw_labels
from ganinfer.files import write_atomic
from ganinfer.progress import Progress
from gantrain.extractors._base import Extractor, see

_KEEP_EVERY = 512  # images, so that little is lost when the program ends
_MOST_FILES = 128  # that are kept, two a network and 2.6 MB each as a rule; the oldest go


class Drawn:
    """What an extractor sees in the images of the seeds from a first one on."""

    def __init__(
        self,
        name: str,
        subject: Subject,
        extractor: Extractor,
        draw: Callable[[Inputs], Images],
        *,
        first_seed: int = 0,
        file: Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Nothing is drawn yet.

        Args:
            name: for progress.
            subject: whose latents and labels are drawn.
            extractor: what sees the images.
            draw: a batch of inputs -> uint8 (N, H, W, C).
            first_seed: of them.
            file: where features are kept for the next time; None keeps none.
            progress: called with (what is being done, images done, images in all).
        """
        self._name, self._subject, self._extractor, self._draw = name, subject, extractor, draw
        self._first_seed, self._file, self._progress = first_seed, file, progress
        self._features: Features | None = None if file is None else _read(file)

    def __len__(self) -> int:
        return 0 if self._features is None else len(self._features)

    def labels(self, num_images: int) -> Labels:
        """int64 (N,), what each seed draws; None if there are no classes."""
        return self._labels(self._first_seed, num_images)

    def upto(self, num_images: int, *, of: int) -> Features:
        """float32 (N, F) of the first seeds; of: how many there may come to be, for progress."""
        while len(self) < num_images:
            stop = min(num_images, len(self) + _KEEP_EVERY)
            self._more(range(self._first_seed + len(self), self._first_seed + stop), of)
            if self._file is not None:
                _write(self._file, self._all)
        return self._all[:num_images]

    @property
    def _all(self) -> Features:
        assert self._features is not None
        return self._features

    def _more(self, seeds: range, of: int) -> None:
        inputs = draw_inputs(self._subject.model, seeds, self._labels(seeds[0], len(seeds)))
        parts = [] if self._features is None else [self._features]
        done = len(self)
        for part in batches(self._subject, inputs):
            parts.append(see(self._extractor, self._draw(part)).features.cpu().numpy())
            done += len(part)
            if self._progress:
                self._progress(self._name, done, of)
        self._features = np.concatenate(parts)

    def _labels(self, first_seed: int, num_images: int) -> Labels:
        classes = self._subject.num_classes
        return draw_labels(range(first_seed, first_seed + num_images), classes) if classes else None


def file_for(reference: Reference, extractor: Extractor, first_seed: int, num_classes: int) -> Path:
    """Where torch's features are kept: for these very images, this extractor and this torch.

    num_classes: of which the seeds draw theirs; there may be more than the images show.
    """
    key = hashlib.sha256()
    for part in (
        *reference.inputs.feed().values(),
        reference.images.astype(np.float32),
        np.frombuffer(extractor.key.encode(), np.uint8),
        np.frombuffer(importlib.metadata.version("torch").encode(), np.uint8),
        np.array([first_seed, num_classes]),
    ):
        key.update(np.ascontiguousarray(part).tobytes())
    return user_cache_path("ganpipe") / "torch_features" / f"{key.hexdigest()[:32]}.npy"


def _read(file: Path) -> Features | None:
    """None if there is no such file, or none that can be read."""
    try:
        features = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    fits = features.dtype == np.float32 and features.ndim == 2 and np.isfinite(features).all()
    return features if fits else None


def _write(file: Path, features: Features) -> None:
    buffer = io.BytesIO()
    np.save(buffer, features, allow_pickle=False)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, buffer.getvalue())
        for old in sorted(file.parent.glob("*.npy"), key=lambda f: f.stat().st_mtime)[
            :-_MOST_FILES
        ]:
            old.unlink()
    except OSError:  # kept for speed alone
        return
