import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ganinfer.errors import DataError
from gantrain.extractors._base import Seen
from gantrain.metrics import _measured as measured
from gantrain.metrics._measured import CHUNK, MeasuredSource, measure_once


class Numbers:
    """Images that are their own number."""

    key = "numbers"

    def __init__(self, count: int) -> None:
        self._count = count
        self.labels = np.arange(count) % 3
        self.reads: list[range] = []

    def __len__(self) -> int:
        return self._count

    def read(self, numbers: range) -> np.ndarray:
        self.reads.append(numbers)
        images = np.arange(numbers.start, numbers.stop) % 256
        return np.broadcast_to(images[:, None, None, None], (len(numbers), 2, 2, 1)).astype(
            np.uint8
        )


class Means:
    """One feature: the mean pixel."""

    name, resizer, sees_classes = "means", "none", False
    device = torch.device("cpu")

    def __init__(self, key: str = "means") -> None:
        self.key = key
        self.calls = 0

    def __call__(self, images: Tensor) -> Seen:
        self.calls += 1
        mean = images.mean(dim=(1, 2, 3))[:, None]
        return Seen(mean, torch.cat([mean, -mean], dim=1))


def open_measured(source: Any, extractor: Means, cache: Path) -> MeasuredSource:
    return MeasuredSource(source, lambda: extractor, cache=cache)


def test_columns_are_those_of_the_images(tmp_path: Path) -> None:
    found = open_measured(Numbers(1234), Means(), tmp_path)
    assert len(found) == 1234
    assert np.array_equal(found.features[:, 0], np.arange(1234) % 256)
    assert np.array_equal(found.logits[:, 1], -(np.arange(1234) % 256))
    assert found.images.dtype == np.uint8
    assert np.array_equal(found.images[:, 0, 0, 0], np.arange(1234) % 256)
    assert [len(chunk) for chunk in found.stream("features")] == [500, 500, 234]
    assert found.moments.num_images == 1234


def test_what_has_been_seen_is_not_seen_again(tmp_path: Path) -> None:
    first = Numbers(1200)
    _ = open_measured(first, Means(), tmp_path).features
    again, extractor = Numbers(1200), Means()
    found = open_measured(again, extractor, tmp_path)
    assert np.array_equal(found.features[:, 0], np.arange(1200) % 256)
    assert (again.reads, extractor.calls) == ([], 0)
    more = Numbers(1700)  # the whole chunks are there; the third was cut short
    assert len(open_measured(more, Means(), tmp_path).features) == 1700
    assert [r.start for r in more.reads] == [1000, 1500]
    fewer = Numbers(700)
    assert len(open_measured(fewer, Means(), tmp_path).features) == 700
    assert fewer.reads == []


def test_another_extractor_or_column_is_seen_anew(tmp_path: Path) -> None:
    _ = open_measured(Numbers(600), Means(), tmp_path).features
    source = Numbers(600)
    _ = open_measured(source, Means("other"), tmp_path).features
    assert len(source.reads) == 2
    source = Numbers(600)
    found = open_measured(source, Means(), tmp_path)
    found.need("features", "images")
    assert len(source.reads) == 2
    found.need("features", "logits")
    _ = found.logits, found.images
    assert len(source.reads) == 4
    with pytest.raises(DataError, match="means gives no spatial"):
        found.need("spatial")


def test_a_damaged_file_is_measured_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _ = open_measured(Numbers(600), Means(), tmp_path).features
    file = sorted(tmp_path.rglob("*.safetensors"))[0]
    file.write_bytes(file.read_bytes()[:100])
    source = Numbers(600)
    assert len(open_measured(source, Means(), tmp_path).features) == 600
    assert [r.start for r in source.reads] == [0]
    assert "cannot be used" in caplog.text


def test_a_cache_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be kept"):
        _ = open_measured(Numbers(10), Means(), tmp_path / "file").features


def test_the_cache_is_kept_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("old", "new"):
        source = Numbers(1000)
        source.key = name
        _ = open_measured(source, Means(), tmp_path).features
        folder = tmp_path / measured._short(name)
        os.utime(folder, (1, 1) if name == "old" else None)
    monkeypatch.setattr(measured, "CACHE_BYTES", 10_000)
    source = Numbers(1000)
    source.key = "newest"
    _ = open_measured(source, Means(), tmp_path).features
    kept = {folder.name for folder in tmp_path.iterdir()}
    assert measured._short("old") not in kept
    assert measured._short("newest") in kept


def test_images_that_come_once_are_measured_in_memory() -> None:
    source = Numbers(250)
    batches = (
        (source.read(range(i, i + 50)), source.labels[i : i + 50]) for i in range(0, 250, 50)
    )
    found = measure_once(batches, Means, "features", "images")
    assert len(found) == 250
    assert np.array_equal(found.features[:, 0], np.arange(250))
    assert found.labels is not None
    assert np.array_equal(found.labels, np.arange(250) % 3)
    assert found.images.shape == (250, 2, 2, 1)
    with pytest.raises(DataError, match="no images"):
        _ = measure_once([], Means, "features").features


KILLED = """
import sys, os, signal
sys.path.insert(0, {here!r})
from pathlib import Path
from test_measured import Means, Numbers, open_measured

class Deadly(Numbers):
    def read(self, numbers):
        if numbers.start >= 1500:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(numbers)

open_measured(Deadly(3000), Means(), Path({cache!r})).features
"""


def test_killed_and_called_again_it_goes_on(tmp_path: Path) -> None:
    code = KILLED.format(here=str(Path(__file__).parent), cache=str(tmp_path))
    killed = subprocess.run([sys.executable, "-c", code], check=False)
    assert killed.returncode == -signal.SIGKILL
    source = Numbers(3000)
    found = open_measured(source, Means(), tmp_path)
    assert np.array_equal(found.features[:, 0], np.arange(3000) % 256)
    assert [r.start for r in source.reads] == list(range(1500, 3000, CHUNK))
