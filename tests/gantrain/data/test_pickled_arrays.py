import collections
import io
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from ganinfer.errors import DataError
from gantrain.data.dataset import Dataset
from gantrain.data.pickled_arrays import read_arrays
from gantrain.data.prepare import prepare

RNG = np.random.default_rng(0)


def string(text: bytes) -> bytes:
    """As Python 2 pickles it, protocol 2."""
    return b"T" + struct.pack("<i", len(text)) + text


def python2(data: np.ndarray, labels: list[int]) -> bytes:
    """A batch as CIFAR-10 has it, written by hand: Python 2 is not here."""
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85"
        + string(b"b")
        + b"\x87R(K\x01"
        + b"".join(b"M" + struct.pack("<H", n) for n in data.shape)
        + b"\x86cnumpy\ndtype\n"
        + string(b"u1")
        + b"K\x00K\x01\x87R(K\x03"
        + string(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        + string(data.tobytes())
        + b"tb"
    )
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(" + string(b"data") + array + string(b"labels") + numbers + b"u."


@pytest.mark.parametrize("protocol", ["python 2", *range(2, 6)])
def test_a_batch_of_any_python_is_read(tmp_path: Path, protocol: int | str) -> None:
    data, labels = RNG.integers(0, 256, (5, 3072), dtype=np.uint8), [3, 1, 4, 1, 5]
    for n in range(1, 6):
        content = (
            python2(data + n, labels)
            if protocol == "python 2"
            else pickle.dumps({b"data": data + n, b"labels": labels}, int(protocol))
        )
        (tmp_path / f"data_batch_{n}").write_bytes(content)
    names = [f"class {n}".encode() for n in range(10)]
    (tmp_path / "batches.meta").write_bytes(pickle.dumps({b"label_names": names}, 2))
    prepare(str(tmp_path), tmp_path / "out")
    dataset = Dataset(tmp_path / "out")
    expected = np.concatenate([data + n for n in range(1, 6)]).reshape(-1, 3, 32, 32)
    assert np.array_equal(dataset.images, expected.transpose(0, 2, 3, 1))
    assert dataset.classes == ["class 1", "class 3", "class 4", "class 5"]
    assert dataset.labels[:5].tolist() == [1, 0, 2, 0, 3]


def test_cifar_100_has_its_fine_labels(tmp_path: Path) -> None:
    data = RNG.integers(0, 256, (3, 3072), dtype=np.uint8)
    for split, labels in (("train", [7, 99, 7]), ("test", [8, 8, 8])):
        held = {"data": np.asfortranarray(data), "fine_labels": labels, "coarse_labels": [1, 2, 1]}
        (tmp_path / split).write_bytes(pickle.dumps(held))
    prepare(str(tmp_path), tmp_path / "out")
    dataset = Dataset(tmp_path / "out")
    assert (dataset.classes, dataset.labels.tolist()) == (["7", "99"], [0, 1, 0])
    assert np.array_equal(dataset.images[1], data[1].reshape(3, 32, 32).transpose(1, 2, 0))
    assert prepare(str(tmp_path), tmp_path / "test-set", split="test").num_images == 3


class Calls:
    """Pickled as a call."""

    def __init__(self, function: object, *arguments: object) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> object:
        return self._call


@pytest.mark.parametrize(
    ("held", "words"),
    [
        (Calls(os.system, "touch ran"), r"the name posix.system, which none of its kind needs"),
        (Calls(eval, "open('ran', 'w')"), r"the name builtins.eval"),
        (Calls(io.open, "ran", "w"), r"the name .*open"),
        ({"data": np.array([{}], object)}, "a dtype that is no whole number's"),
        ({"data": np.zeros((1, 3072))}, "a dtype that is no whole number's"),
        ({"data": collections.OrderedDict()}, "the name collections.OrderedDict"),
        ({(1, 2): 3}, "a key that is a tuple"),
    ],
)
def test_a_hostile_pickle_is_refused_and_nothing_of_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: object, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps(held))
    with pytest.raises(DataError, match=f"data_batch_1: .*{words}.*nothing in it was run"):
        prepare(str(tmp_path), tmp_path / "out")
    assert os.listdir(tmp_path) == ["data_batch_1"]


def test_an_array_has_the_bytes_that_it_declares(tmp_path: Path) -> None:
    whole = python2(np.zeros((2, 3072), np.uint8), [0, 1])
    (tmp_path / "a").write_bytes(whole.replace(struct.pack("<H", 3072), struct.pack("<H", 9999)))
    with pytest.raises(DataError, match=r"an array \(2, 9999\) of 6,144 bytes"):
        read_arrays(tmp_path / "a")
    (tmp_path / "b").write_bytes(whole[:300])
    with pytest.raises(DataError, match="no whole pickle .*fetch it again"):
        read_arrays(tmp_path / "b")


def test_a_batch_without_labels_says_what_it_holds(tmp_path: Path) -> None:
    held = {"data": np.zeros((2, 3072), np.uint8), "names": ["a", "b"]}
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps(held))
    with pytest.raises(DataError, match="found data, names; expected data and labels"):
        prepare(str(tmp_path), tmp_path / "out")
