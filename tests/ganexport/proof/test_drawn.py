"""Features that are kept: whose they are, and that a broken file costs time alone."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ganexport.proof import drawn as module
from ganexport.proof.drawn import Drawn, file_for
from ganexport.proof.reference import reference_of, run_torch
from ganexport.proof.rounding import uint8_images
from ganexport.subjects.spec import Spec
from ganexport.subjects.subject import Subject, of_module
from ganinfer.drawing.images import Images
from ganinfer.drawing.inputs import Inputs
from gantrain.extractors.classifier import RandomExtractor


class OfManyClasses(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.out = nn.Embedding(1000, 8), nn.Linear(8, 3 * 8 * 8)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        return torch.tanh(self.out(z + self.embed(y))).view(-1, 3, 8, 8)


def subject(num_classes: int) -> Subject:
    return of_module(OfManyClasses(), Spec(z_dim=8, classes=num_classes))


def test_features_are_kept_apart_where_seeds_draw_other_classes() -> None:
    one = subject(3)
    extractor = RandomExtractor(one.model.shape)
    assert len({file_for(reference_of(one), extractor, 0, count) for count in (3, 1000)}) == 2


@pytest.mark.parametrize("found", [b"", b"\x93NUMPY\x01\x00v\x00{'descr'", None])
def test_a_file_that_is_broken_or_of_other_numbers_is_drawn_again(found, tmp_path: Path) -> None:
    few, file = subject(3), tmp_path / "kept" / "x.npy"

    def draw(inputs: Inputs) -> Images:
        return uint8_images(run_torch(few, inputs))

    def features() -> object:
        return Drawn("torch", few, RandomExtractor(few.model.shape), draw, file=file).upto(
            70, of=70
        )

    first = features()
    if found is None:
        np.save(file, np.zeros(70))
    else:
        file.write_bytes(found)
    assert np.array_equal(features(), first)
    assert np.array_equal(np.load(file), first)


def test_the_oldest_files_go(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "_MOST_FILES", 2)
    for n in range(4):
        module._write(tmp_path / f"{n}.npy", np.zeros((1, 1), np.float32))
        os.utime(tmp_path / f"{n}.npy", (n, n))
    assert sorted(os.listdir(tmp_path)) == ["2.npy", "3.npy"]
