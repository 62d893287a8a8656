from pathlib import Path

import numpy as np
import pytest
import torch

from ganinfer.bundle.archive import Bundle
from ganinfer.drawing.arguments import checked_labels, checked_latents
from ganinfer.drawing.model import Model
from ganinfer.errors import RequestError


@pytest.fixture(scope="module")
def model(bundle: Path) -> Model:
    with Bundle(bundle) as opened:
        return opened.manifest.model


class OnCuda:
    """What a tensor on the second GPU says of itself, and how its capsule ends in NumPy."""

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 1

    def __dlpack__(self, **_: object) -> object:
        raise BufferError("Unsupported device in DLTensor.")


class TorchOnCuda(OnCuda):
    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        raise TypeError("can't convert cuda:1 device type tensor to numpy")


@pytest.mark.parametrize("tensor", [OnCuda(), TorchOnCuda()], ids=["dlpack", "torch"])
def test_latents_and_labels_on_a_gpu_are_told_the_way_to_the_host(model: Model, tensor) -> None:
    with pytest.raises(RequestError, match=r"^z: lies on cuda:1; .* z\.cpu\(\)$"):
        checked_latents(model, tensor)
    with pytest.raises(RequestError, match=r"^y: lies on cuda:1; .* y\.cpu\(\)$"):
        checked_labels(model, tensor, 2)


def test_latents_that_numpy_cannot_read_give_its_reason(model: Model) -> None:
    with pytest.raises(RequestError, match=r"z: found Tensor, .*[Ss]parse"):
        checked_latents(model, torch.zeros(2, 16).to_sparse())
    with pytest.raises(RequestError, match=r"z: found list, which NumPy cannot read: its rows"):
        checked_latents(model, [[1.0], [1.0, 2.0]])


def test_latents_are_taken_from_lists_and_without_a_copy_from_what_shares_them(
    model: Model,
) -> None:
    z = torch.ones(2, 16)
    assert checked_latents(model, z).ctypes.data == z.data_ptr()
    assert np.array_equal(checked_latents(model, z.tolist()), z.numpy())
