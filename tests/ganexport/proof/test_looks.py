from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor, nn

from ganexport.pipeline import export
from ganexport.proof.looks import Looks, look_at
from ganexport.subjects.spec import Spec
from ganexport.subjects.subject import of_module
from ganinfer.errors import ExportError
from gantrain.data.opening import prepared_copy
from gantrain.data.prepare import prepare

SIZE = 16


@pytest.fixture(scope="module")
def photographs() -> np.ndarray:
    """uint8 (N, 16, 16, 3), RGB: pieces of two photographs."""
    pieces = [
        picture[y : y + SIZE, x : x + SIZE]
        for picture in load_sample_images().images
        for y in range(0, 416, SIZE)
        for x in range(0, 640, SIZE)
    ]
    return np.stack(pieces)


@pytest.fixture(scope="module")
def data(photographs: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    np.savez(folder / "x.npz", images=photographs)
    return prepare(str(folder / "x.npz"), folder / "data").path


class Knows(nn.Module):
    """By heart each fourth of some pictures, on [-1, 1] or another scale."""

    def __init__(self, pictures: np.ndarray, *, scale: float = 1.0, shift: float = 0.0) -> None:
        super().__init__()
        pixels = torch.from_numpy(pictures[::4].copy()).permute(0, 3, 1, 2) / 127.5 - 1
        self._width = pixels.shape[3]
        self.pictures = nn.Parameter(pixels.flatten(1) * scale + shift)

    def forward(self, z: Tensor) -> Tensor:
        chosen = torch.softmax(1e4 * z, dim=1)
        return (chosen @ self.pictures).reshape(-1, 3, SIZE, self._width)


def looks(network: Knows, data: Path | None = None, **said: str) -> Looks:
    return look_at(of_module(network, Spec(z_dim=len(network.pictures), **said)), data)


def test_pictures_as_they_should_be_are_passed_over(photographs: np.ndarray, data: Path) -> None:
    assert looks(Knows(photographs), data) == Looks()


def test_pictures_are_taken_in_the_shape_of_the_generators(
    photographs: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    wide = photographs[::10].reshape(-1, 2, SIZE, SIZE, 3).swapaxes(1, 2)
    wide = wide.reshape(-1, SIZE, 2 * SIZE, 3)
    (tmp_path / "photos").mkdir()
    for n, picture in enumerate(wide):
        Image.fromarray(picture).save(tmp_path / "photos" / f"{n}.png")
    assert looks(Knows(wide), tmp_path / "photos") == Looks()
    assert prepared_copy(tmp_path / "photos", (SIZE, 2 * SIZE)).exists()


@pytest.mark.parametrize(
    ("scale", "shift", "words"),
    [
        (0.5, 0.5, "never below 0, as of a sigmoid.*--set output_range=0:1"),
        (127.5, 127.5, "as of bytes"),
        (3.0, 0.0, "values from -3 to 3 .* lie outside .* cut off; .*imagenet"),
    ],
)
def test_another_scale_is_refused_unless_it_is_said(
    photographs: np.ndarray, tmp_path: Path, scale: float, shift: float, words: str
) -> None:
    network = Knows(photographs, scale=scale, shift=shift)
    with pytest.raises(ExportError, match=words):
        export(network, Spec(z_dim=len(network.pictures)), tmp_path / "x.gan")
    seen = looks(network, output_range="-1:1")
    assert seen.refusal is None
    assert seen.picture is not None
    (warning,) = seen.warnings
    assert warning.startswith("Knows: values from")


def test_values_that_are_nearly_all_alike_are_doubted(
    photographs: np.ndarray, data: Path, tmp_path: Path
) -> None:
    (warning,) = looks(Knows(photographs, scale=0.1)).warnings
    assert "hardly use [-1, 1]; is it trained" in warning
    dark = tmp_path / "dark.npz"
    np.savez(dark, images=photographs // 16)
    made = prepare(str(dark), tmp_path / "dark").path
    assert looks(Knows(photographs // 16), made) == Looks()  # as the data are


def test_red_and_blue_the_other_way_round_than_in_the_data_are_told(
    photographs: np.ndarray, data: Path
) -> None:
    swapped = Knows(photographs[..., ::-1])
    seen = looks(swapped, data)
    (warning,) = seen.warnings
    assert "red and blue look swapped" in warning
    assert "--set channel_order=bgr" in warning
    assert seen.picture is not None
    assert seen.picture.shape == (3 * 50 + 2, 8 * 50 + 2, 3)
    assert looks(swapped, data, channel_order="bgr") == Looks()


def test_a_doubt_is_the_last_thing_that_an_export_says(gan, tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(
        "from torch import nn\n\n\nclass G(nn.Module):\n    def forward(self, z):\n"
        "        return 3 * z.tanh().reshape(-1, 3, 4, 4)\n"
    )
    said = ("--set", "z_dim=48", "--set", "output_range=-1:1")
    made = ("export", "--module", "nets.py:G", *said, "-o", "x.gan", "--no-verify")
    result = gan(*made, cwd=tmp_path)
    assert result.stdout.splitlines()[-1] == "doubtful, look at it: x-looks.png", result.stderr
    assert (tmp_path / "x-looks.png").exists()
    refused = gan(*made[:5], "-o", "y.gan", cwd=tmp_path)
    assert "--set output_range=-1:1 takes them for what they are" in refused.stderr
    assert (tmp_path / "y-looks.png").exists()
    assert not (tmp_path / "y.gan").exists()
