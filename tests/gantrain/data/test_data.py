import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from ganinfer.errors import DataError
from gantrain.data.dataset import Dataset, RealBatches

CPU = torch.device("cpu")


@pytest.fixture
def folder(shapes: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shapes, tmp_path / "data"))


def test_every_epoch_shows_every_image_once(shapes: Path) -> None:
    dataset = Dataset(shapes)
    batches = RealBatches(dataset, 50, seed=1, device=CPU)
    epochs = [torch.cat([batches._next_indices()[0] for _ in range(6)]) for _ in range(2)]
    for epoch in epochs:
        assert sorted(epoch.tolist()) == list(range(300))
    assert epochs[0].tolist() != epochs[1].tolist()


def test_a_batch_may_cross_the_end_of_an_epoch(shapes: Path) -> None:
    batches = RealBatches(Dataset(shapes), 70, seed=1, device=CPU)
    drawn = torch.cat([batches._next_indices()[0] for _ in range(30)])
    assert np.bincount(drawn.numpy()).tolist() == [7] * 300


def test_position_is_the_whole_state(shapes: Path) -> None:
    first = RealBatches(Dataset(shapes), 32, seed=5, device=CPU)
    for _ in range(13):
        first.next()
    second = RealBatches(Dataset(shapes), 32, seed=5, device=CPU)
    second.position = first.position
    for a, b in zip(first.next(), second.next(), strict=True):
        assert torch.equal(a, b)


def test_batches_are_scaled_to_minus_one_and_one(shapes: Path) -> None:
    dataset = Dataset(shapes)
    images, labels = RealBatches(dataset, 300, seed=0, device=CPU).next()
    assert images.shape == (300, 3, 16, 16)
    assert -1 <= images.min() < -0.9
    assert 0.9 < images.max() <= 1
    assert labels.dtype == torch.int64


@pytest.mark.parametrize("label", [3, -1, 2**40])
def test_a_label_outside_the_classes_is_named(folder: Path, label: int) -> None:
    labels = np.load(folder / "labels.npy")
    labels[17] = label
    np.save(folder / "labels.npy", labels)
    with pytest.raises(DataError, match=f"label {label} of image 17.*3 classes, 0 to 2"):
        Dataset(folder)


def test_a_missing_dataset_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gan prepare"):
        Dataset(tmp_path / "nothing")


def test_a_truncated_array_is_named(folder: Path) -> None:
    data = (folder / "images.npy").read_bytes()
    (folder / "images.npy").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"images.npy"):
        Dataset(folder)


def test_another_format_version_is_refused(folder: Path) -> None:
    description = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**description, "format_version": 9}))
    with pytest.raises(DataError, match="format_version 9, expected 1"):
        Dataset(folder)


def test_mirroring_flips_half_of_the_images_the_same_way_every_time(shapes: Path) -> None:
    dataset = Dataset(shapes)
    plain, mirrored, again = (
        RealBatches(dataset, 300, seed=3, device=CPU, mirror=mirror)
        for mirror in (False, True, True)
    )
    straight, _ = plain.next()
    flipped, labels = mirrored.next()
    assert torch.equal(flipped, again.next()[0])
    same = (straight == flipped).flatten(1).all(1)
    turned = (straight.flip(3) == flipped).flatten(1).all(1)
    assert (same | turned).all()
    assert 100 < int(turned.sum()) < 200
    assert labels is not None
    again.position = 0
    assert torch.equal(again.next()[0], flipped)
