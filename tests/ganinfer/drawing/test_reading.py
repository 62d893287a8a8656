"""What users have in their hands, against the images of plain lists."""

from collections import UserList, deque
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ml_dtypes import bfloat16

from ganinfer import Sampler
from ganinfer.drawing.arguments import checked_labels, checked_latents, numbers_asked
from ganinfer.drawing.latents import draw_latents, seed_array
from ganinfer.drawing.model import Model
from ganinfer.errors import RequestError
from ganinfer.film import walk
from ganinfer.shards import write_shards

try:
    import pandas as pd
except ModuleNotFoundError:
    pd = None

Z_DIM = 16
CLASSES = ["cat", "dog", "fox"]
MODEL = Model(
    family="dcgan",
    resolution=16,
    channels=3,
    classes=CLASSES,
    z_dim=Z_DIM,
    z_distribution="normal",
    truncation_modes=["resample"],
)
MIXABLE = MODEL.model_copy(update={"class_input": "weights"})


def of_its_type(value: Any) -> str:
    """The name of a test, without addresses and line breaks."""
    return value if isinstance(value, str) else type(value).__name__


class Column:
    """What a column of any library of tables is to NumPy."""

    def __init__(self, values: Any) -> None:
        self._values = np.asarray(values)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self._values.astype(dtype or self._values.dtype)


class Tensor:
    """What speaks DLPack, and nothing else."""

    def __init__(self, values: Any) -> None:
        self._values = np.asarray(values)

    def __dlpack__(self, **options: Any) -> Any:
        return self._values.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._values.__dlpack_device__()


class Broken:
    """A table whose content cannot be had."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        raise KeyError("gone\nfor good")


@pytest.fixture(scope="module")
def sampler(bundle: Path) -> Iterator[Sampler]:
    with Sampler(bundle) as opened:
        yield opened


# Integers in one axis: what makes them of a list.
COLUMNS: dict[str, Callable[[list[int]], Any]] = {
    "tuple": tuple,
    "deque": deque,
    "UserList": UserList,
    "NumPy int64": np.array,
    "NumPy int16": lambda values: np.array(values, np.int16),
    "NumPy uint64": lambda values: np.array(values, np.uint64),
    "NumPy big-endian": lambda values: np.array(values, ">i8"),
    "NumPy objects": lambda values: np.array(values, object),
    "NumPy, every second": lambda values: np.repeat(values, 2)[::2],
    "numbers of NumPy": lambda values: [np.int64(value) for value in values],
    "numbers of two types": lambda values: [np.uint64(values[0]), *values[1:]],
    "torch": torch.tensor,
    "torch int32": lambda values: torch.tensor(values, dtype=torch.int32),
    "tensors": lambda values: list(torch.tensor(values)),
    "__array__": Column,
    "__dlpack__": Tensor,
}
if pd is not None:
    COLUMNS |= {
        "pandas Series": pd.Series,
        "pandas Index": pd.Index,
        "pandas, another index": lambda values: pd.Series(values, index=range(9, 9 + len(values))),
        "pandas Int64": lambda values: pd.Series(values, dtype="Int64"),
        "pandas objects": lambda values: pd.Series(values, dtype=object),
        "pandas Categorical": pd.Categorical,
        "column of a DataFrame": lambda values: pd.DataFrame({"a": values})["a"],
    }

SCALARS: dict[str, Callable[[int], Any]] = {
    "NumPy int64": np.int64,
    "NumPy uint8": np.uint8,
    "NumPy without axes": np.array,
    "torch without axes": torch.tensor,
    "__array__": Column,
    "__dlpack__": Tensor,
}

# Class names in one axis.
NAMES: dict[str, Callable[[list[str]], Any]] = {
    "list": list,
    "tuple": tuple,
    "NumPy": np.array,
    "NumPy objects": lambda names: np.array(names, object),
    "texts of NumPy": lambda names: [np.str_(name) for name in names],
    "__array__": Column,
}
if pd is not None:
    NAMES |= {
        "pandas Series": pd.Series,
        "pandas Index": pd.Index,
        "pandas category": lambda names: pd.Series(names, dtype="category"),
        "pandas string": lambda names: pd.Series(names, dtype="string"),
        "pandas objects": lambda names: pd.Series(names, dtype=object),
    }


@pytest.mark.parametrize("make", COLUMNS.values(), ids=COLUMNS.keys())
def test_columns_of_numbers_are_seeds_and_labels(sampler: Sampler, make) -> None:
    seeds, labels = [7, 300, 5], [2, 0, 1]
    expected = sampler.sample(seeds=seeds, labels=labels)
    assert np.array_equal(sampler.sample(seeds=make(seeds), labels=make(labels)), expected)
    in_stream = sampler.stream(3, 2, seed=7, labels=make(labels))
    assert np.array_equal(np.concatenate(list(in_stream)), sampler.sample(3, seed=7, labels=labels))
    z = draw_latents(seeds, Z_DIM)
    assert np.array_equal(sampler.generate(z, make(labels)), expected)


@pytest.mark.parametrize("make", SCALARS.values(), ids=SCALARS.keys())
def test_one_number_may_be_an_array_without_axes(sampler: Sampler, make) -> None:
    expected = sampler.sample(2, seed=5, labels=1)
    assert np.array_equal(sampler.sample(make(2), seed=make(5), labels=make(1)), expected)
    stream = sampler.stream(make(2), make(1), seed=make(5), labels=make(1))
    assert np.array_equal(np.concatenate(list(stream)), expected)
    assert np.array_equal(sampler.generate(draw_latents([5, 6], Z_DIM), make(1)), expected)
    assert sampler.number_of(make(1)) == 1
    film = sampler.interpolate(make(5), make(6), make(2), label=make(1))
    assert np.array_equal(film, sampler.interpolate(5, 6, 2, label=1))
    frames = np.stack(list(walk(sampler, [5, 6], 1, labels=make(1))))
    assert np.array_equal(frames, film)


@pytest.mark.parametrize("make", NAMES.values(), ids=NAMES.keys())
def test_names_are_labels_wherever_labels_are(make) -> None:
    names = make(["fox", "cat"])
    assert numbers_asked(MODEL, names, 2).tolist() == [2, 0]
    assert checked_labels(MODEL, names, 2).tolist() == [2, 0]
    assert checked_labels(MODEL, np.str_("dog"), 2).tolist() == [1, 1]


def test_labels_of_shards_and_films_are_in_turn_whatever_holds_them(
    sampler: Sampler, tmp_path: Path
) -> None:
    labels = torch.tensor([2, 0])
    write_shards(sampler, 4, tmp_path / "tensor", labels=labels)
    write_shards(sampler, 4, tmp_path / "list", labels=[2, 0])
    one, other = (tmp_path / name / "shards.json" for name in ("tensor", "list"))
    assert one.read_bytes() == other.read_bytes()
    film = list(walk(sampler, torch.tensor([4, 9, 2]), 1, labels=labels))
    assert np.array_equal(film, list(walk(sampler, [4, 9, 2], 1, labels=[2, 0])))


@pytest.mark.parametrize(
    "make",
    [
        lambda z: z.tolist(),
        list,
        lambda z: [tuple(row) for row in z],
        lambda z: z.astype(np.float64),
        lambda z: np.asfortranarray(z),
        torch.from_numpy,
        lambda z: torch.from_numpy(z).requires_grad_(),
        lambda z: torch.nn.Parameter(torch.from_numpy(z)),
        lambda z: list(torch.from_numpy(z)),
        lambda z: torch.from_numpy(z).half(),
        lambda z: torch.from_numpy(z).bfloat16(),
        lambda z: torch.from_numpy(z).bfloat16().requires_grad_(),
        lambda z: z.astype(bfloat16),
        Column,
        Tensor,
        *([] if pd is None else [pd.DataFrame]),
    ],
)
def test_latents_are_read_of_whatever_holds_them(make) -> None:
    z = np.round(draw_latents(range(3), Z_DIM) * 16) / 16  # the same in eight bits
    found = checked_latents(MODEL, make(z))
    assert (found.dtype, found.flags.c_contiguous) == (np.float32, True)
    assert np.array_equal(found, z)


def test_latents_that_are_float32_already_are_not_copied() -> None:
    z = np.zeros((2, Z_DIM), np.float32)
    for same in (z, torch.from_numpy(z), torch.from_numpy(z).requires_grad_(), Tensor(z)):
        assert np.shares_memory(checked_latents(MODEL, same), z)


def test_labels_are_those_of_the_moment_of_asking() -> None:
    labels = np.array([2, 0])
    asked = numbers_asked(MODEL, labels, 2)
    labels[:] = 1
    assert asked.tolist() == [2, 0]


@pytest.mark.parametrize(
    "make", [lambda w: w.tolist(), list, lambda w: w, torch.from_numpy, Column, Tensor]
)
def test_weights_of_classes_are_read_of_whatever_holds_them(make) -> None:
    weights = np.array([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    for read in (numbers_asked, checked_labels):
        assert np.array_equal(read(MIXABLE, make(weights), 2), weights)
        one_hot = np.eye(3, dtype=np.int64)[:2]
        assert np.array_equal(read(MIXABLE, make(one_hot), 2), one_hot)


def test_a_mixture_has_weights_and_classes_of_any_library() -> None:
    mixtures = [{np.int64(0): np.float32(0.5), "fox": torch.tensor(0.5)}, np.int64(1)]
    expected = [[0.5, 0, 0.5], [0, 1, 0]]
    assert numbers_asked(MIXABLE, mixtures, 2).tolist() == expected
    assert numbers_asked(MIXABLE, np.array(mixtures, object), 2).tolist() == expected
    assert checked_labels(MIXABLE, mixtures[0], 1).tolist() == expected[:1]


def test_the_largest_seeds_keep_every_bit() -> None:
    seeds = [2**64 - 1, 0, 2**63, 1]
    for same in (seeds, tuple(seeds), np.array(seeds, np.uint64), np.array(seeds, object)):
        assert seed_array(same).tolist() == seeds
    assert seed_array(range(2**64 - 2, 2**64)).tolist() == [2**64 - 2, 2**64 - 1]
    assert seed_array(range(8, 0, -2)).tolist() == [8, 6, 4, 2]


# What a user can get wrong.

OF_COLUMNS: list[tuple[Any, str]] = [
    (b"12", "found bytes; say what they are"),
    (bytearray(b"12"), "found bytearray; say what they are"),
    (memoryview(b"12"), "found memoryview; say what they are"),
    ({1, 2}, r"found set; expected a list or an array; .* sorted\("),
    (frozenset([1, 2]), r"found frozenset; .* sorted\("),
    ({0: 1, 1: 1}.keys(), r"found dict_keys; .* list\("),
    ((value for value in (1, 2)), r"found generator; .* list\("),
    (map(int, "12"), r"found map; .* list\("),
    (np.array([True, False]), r"found bool \(2,\)"),
    (torch.tensor([True, False]), r"found bool \(2,\)"),
    ([True, False], "True"),
    ([0, np.True_], "True"),
    ([0, torch.tensor(True)], "True"),
    (np.array([0, True], object), "True"),
    (np.array([0.0, 1.0]), r"found float64 \(2,\)"),
    ([0, 1.0], r"found float64 \(2,\)"),
    (torch.tensor([0.0, 1.0], requires_grad=True), r"found float32 \(2,\)"),
    ([0, None], "None"),
    ([0, float("nan")], r"found float64 \(2,\) with NaN"),
    (np.array([0, np.nan], object), "nan"),
    (np.ma.masked_array([0, 1], [True, False]), "holds masked values"),
    ([0, Decimal(1)], "Decimal"),
    ([0, 1j], "1j"),
    ([0, [1]], "1"),
    ([[0], [1]], r"found int64 \(2, 1\)"),
    (
        [[0], [1, 2]],
        r"found list, which NumPy cannot read: its rows have the shapes \(1,\), \(2,\)",
    ),
    (np.zeros((2, 2), int), r"found int64 \(2, 2\)"),
    (np.array([b"0", b"1"]), r"found \|S1 \(2,\)"),
    (np.array(["2026-01-01"] * 2, "M8[D]"), r"found datetime64\[D\] \(2,\)"),
    (torch.eye(2).to_sparse(), r"found Tensor, which NumPy cannot read: .*[Ss]parse"),
    (torch.zeros(2, device="meta"), "lies on meta; copy it to the host first"),
    (Broken(), "found Broken, which NumPy cannot read: 'gone.*for good'"),
    (object(), "found <object object"),
    ([0, 10**30], str(10**30)),
    (np.array([0, -1]), "-1"),
    (1.5, "found 1.5"),
    (np.float32(1.5), "found 1.5"),
]
if pd is not None:
    OF_COLUMNS += [
        (pd.Series([True, False]), r"found bool \(2,\)"),
        (pd.Series([True, None], dtype="boolean"), "True"),
        (pd.Series([1, None], dtype="Int64"), r"found float64 \(2,\) with NaN|<NA>"),
        (pd.Series([1, None]), r"found float64 \(2,\) with NaN"),
        (pd.Series(["cat", None], dtype="category"), "cat|nan"),
        (pd.DataFrame({"a": [0, 1], "b": [0, 1]}), r"found int64 \(2, 2\)"),
        (pd.Series(pd.to_datetime(["2026-01-01"] * 2)), r"found datetime64"),
    ]


@pytest.mark.parametrize(("given", "words"), OF_COLUMNS, ids=of_its_type)
def test_what_is_no_seed_and_no_label_is_refused_in_words(given, words: str) -> None:
    with pytest.raises(RequestError, match=rf"^seeds: .*{words}") as refused:
        seed_array(given)
    assert "\n" not in str(refused.value)
    for read, name in ((numbers_asked, "labels"), (checked_labels, "y")):
        with pytest.raises(RequestError, match=rf"^({name}|label):? .*{words}") as refused:
            read(MODEL, given, 2)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (True, "found True; expected an integer"),
        (np.True_, "found True; expected an integer"),
        (torch.tensor(True), "found True; expected an integer"),
        (2.0, "found 2.0; expected an integer"),
        (np.array(2.0), "found 2.0; expected an integer"),
        ("2", "found '2'; expected an integer"),
        (np.array([2]), r"found int64 \(1,\); expected a single value"),
        (torch.tensor([2, 3]), r"found int64 \(2,\); expected a single value"),
        (np.int64(-1), "found -1; expected an integer"),
        ([2], r"found \[2\]; expected an integer"),
    ],
    ids=str,
)
def test_what_is_no_single_integer_is_refused_in_words(sampler: Sampler, given, words) -> None:
    with pytest.raises(RequestError, match=f"^n: {words}"):
        sampler.sample(given)
    with pytest.raises(RequestError, match=f"^n: {words}"):
        sampler.sample(given, seeds=[1, 2])
    with pytest.raises(RequestError, match=f"^seed: {words}"):
        sampler.sample(1, seed=given)


@pytest.mark.parametrize(
    ("z", "words"),
    [
        (None, "found None; expected float32"),
        ("z", "found 'z'; expected float32"),
        (b"z", "found bytes"),
        ([], r"found int64 \(0,\); expected float32 \(N, 16\)"),
        (torch.zeros(2, 16, 1, 1), r"found float32 \(2, 16, 1, 1\); expected float32 \(N, 16\)"),
        (np.zeros((2, 16), bool), r"found bool \(2, 16\)"),
        (np.zeros((2, 16), complex), r"found complex128 \(2, 16\)"),
        ([[True] * 16], r"found object \(1, 16\)"),
        ([["0"] * 16], r"found <U1 \(1, 16\)"),
        (np.zeros((2, 16), object), r"found object \(2, 16\)"),
        (iter([[0.0] * 16]), "found list_iterator"),
    ],
    ids=of_its_type,
)
def test_what_is_no_latent_is_refused_in_words(z, words: str) -> None:
    with pytest.raises(RequestError, match=f"^z: {words}"):
        checked_latents(MODEL, z)


def test_one_hot_labels_are_told_the_ways_out() -> None:
    for one_hot in (np.eye(3)[:2], np.eye(3, dtype=int)[:2].tolist(), torch.eye(3)[:2]):
        with pytest.raises(RequestError, match="give class numbers, or export .*--class-weights"):
            numbers_asked(MODEL, one_hot, 2)


def test_labels_are_refused_where_there_are_no_classes() -> None:
    unconditional = MODEL.model_copy(update={"classes": []})
    for labels in (0, "cat", np.int64(0), torch.tensor(0), [0, 0], np.zeros(2, int)):
        with pytest.raises(RequestError, match="this model has no classes; leave labels out"):
            numbers_asked(unconditional, labels, 2)
