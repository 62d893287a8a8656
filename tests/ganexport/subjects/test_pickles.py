"""Networks that NVIDIA's code pickled."""

import logging
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from published import EasyDict, file_of, network, register
from torch import Tensor

from ganexport.importers import stylegan2
from ganexport.subjects.weights import read_state
from ganinfer.errors import ExportError


@pytest.fixture(autouse=True)
def _names(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch)


def state_of() -> dict[str, Tensor]:
    """In the order of `state_dict()`: parameters, buffers, parts."""
    drawn = torch.Generator().manual_seed(0)
    shapes = {"b": (2,), "w_avg": (3,), "f.weight": (4, 3), "f.g.weight": (2, 3, 1, 1), "h.e": ()}
    return {name: torch.randn(shape, generator=drawn) for name, shape in shapes.items()}


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("protocol", [3, 4, 5])  # of Python up to 3.7, up to 3.13, and since
def test_tensors_come_out_as_state_dict_names_them(tmp_path: Path, protocol: int) -> None:
    state = state_of()
    path = written(tmp_path / "x.pkl", file_of(network(state, {}), protocol=protocol))
    found = read_state(path)
    assert list(found) == list(state)
    assert all(torch.equal(found[name], state[name]) for name in state)
    found["b"].zero_()  # is its own
    assert torch.equal(read_state(path)["b"], state["b"])


def test_the_averaged_network_is_taken_and_said_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path / "x.pkl", file_of(network(state_of(), {})))
    with caplog.at_level(logging.INFO):
        read_state(path)
    assert "x.pkl: took G_ema, the averaged one; it also holds 'G', 'augment_pipe'" in caplog.text


def test_another_network_of_the_file_is_taken_by_its_key(tmp_path: Path) -> None:
    other = {name: value + 1 for name, value in state_of().items()}
    both = {"G": network(other, {}), "G_ema": network(state_of(), {})}
    path = written(tmp_path / "x.pkl", pickle.dumps(both))
    assert torch.equal(read_state(path, "G")["b"], other["b"])
    with pytest.raises(ExportError, match="no 'H' in it; found 'G', 'G_ema'; see --weights-key"):
        read_state(path, "H")


def test_a_network_may_be_all_of_a_file(tmp_path: Path) -> None:
    path = written(tmp_path / "x.pkl", pickle.dumps(network(state_of(), {})))
    assert list(read_state(path)) == list(state_of())
    with pytest.raises(ExportError, match="it is one network, leave --weights-key out"):
        read_state(path, "G_ema")


def test_the_source_of_the_classes_is_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    source = f"open({str(marker)!r}, 'w')"
    data = file_of(network(state_of(), {}, module_src=source))
    assert source.encode() in data
    read_state(written(tmp_path / "x.pkl", data))
    assert not marker.exists()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.int64, torch.bool])
def test_tensors_of_any_dtype_and_strides(tmp_path: Path, dtype: torch.dtype) -> None:
    value = torch.arange(24).reshape(4, 6).to(dtype).T[1:5, ::2]
    data = file_of(network({"w_avg": value}, {}))
    found = read_state(written(tmp_path / "x.pkl", data))["w_avg"]
    assert found.dtype == dtype
    assert torch.equal(found, value)


def test_buffers_that_are_not_of_the_state_are_left_out(tmp_path: Path) -> None:
    whole = network(state_of(), {})
    whole.state["_non_persistent_buffers_set"].add("w_avg")
    found = read_state(written(tmp_path / "x.pkl", file_of(whole)))
    assert found.keys() == state_of().keys() - {"w_avg"}


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_attributes_are_plain(tmp_path: Path, protocol: int) -> None:
    attributes: dict[str, dict[str, Any]] = {
        "": {"class_name": "Generator", "_init_kwargs": EasyDict(a=[1, 2.5, None], b="c")},
        "f": {"up_factor": np.array([2, 2]), "gain": np.float64(0.1), "size": np.int64(-3)},
    }
    data = file_of(network(state_of(), attributes), protocol=protocol)
    found = read_state(written(tmp_path / "x.pkl", data))
    assert found.modules.keys() == {"", "f", "f.g", "h"}
    assert found.modules[""].class_name == "Generator"
    assert found.modules[""].state["_init_kwargs"] == {"a": [1, 2.5, None], "b": "c"}
    own = found.modules["f"].state
    assert (own["gain"], own["size"]) == (0.1, -3)
    assert (own["up_factor"].shape, own["up_factor"].values) == ((2,), (2, 2))


def test_an_easy_dict_may_have_an_empty_state(tmp_path: Path) -> None:
    state = b"\x8c\x0bdnnlib.util\x8c\x08EasyDict\x93)\x81}b"  # as some versions of Python write it
    data = pickle.dumps({"G_ema": network(state_of(), {}), "more": None})
    assert data.endswith(b"\x8c\x04more\x94Nu.")
    found = read_state(written(tmp_path / "x.pkl", data[:-3] + state + b"u."))
    assert list(found) == list(state_of())


def test_what_torch_saved_under_that_name_is_read_by_torch(tmp_path: Path) -> None:
    for new in (True, False):
        torch.save(state_of(), tmp_path / "x.pkl", _use_new_zipfile_serialization=new)
        assert list(read_state(tmp_path / "x.pkl")) == list(state_of())


# StyleGAN2.


def stylegan2_file(attributes: dict[str, dict[str, Any]]) -> bytes:
    """With two layers of each kind; 8x8 pixels."""
    plan = stylegan2.Plan(6, 0, 0, [5, 5], [4, 3], 3)
    with torch.device("meta"):
        names = stylegan2.Generator(plan, psi=1.0, clamp=math.inf).state_dict()
    drawn = torch.Generator().manual_seed(0)
    state = {name: torch.randn(v.shape, generator=drawn) for name, v in names.items()}
    layers = ["b4.conv1", "b4.torgb", "b8.conv0", "b8.conv1", "b8.torgb"]
    given = {f"synthesis.{name}": {"conv_clamp": 2.0} for name in layers}
    for name, own in attributes.items():
        given[name] = given.get(name, {}) | own
    return file_of(network(state, given))


def test_the_clamp_is_the_files(tmp_path: Path) -> None:
    path = written(tmp_path / "x.pkl", stylegan2_file({}))
    z, psi = torch.randn(3, 6), torch.ones(3)
    found, _ = stylegan2.read(read_state(path))
    expected, _ = stylegan2.read(dict(read_state(path)), conv_clamp=2.0)
    other, _ = stylegan2.read(dict(read_state(path)))
    assert torch.equal(found(z, psi), expected(z, psi))
    assert not torch.equal(found(z, psi), other(z, psi))


def test_a_file_without_a_clamp_has_none(tmp_path: Path) -> None:
    none: dict[str, dict[str, Any]] = {
        f"synthesis.{name}": {"conv_clamp": None}
        for name in ("b4.conv1", "b4.torgb", "b8.conv0", "b8.conv1", "b8.torgb")
    }
    path = written(tmp_path / "x.pkl", stylegan2_file(none))
    z, psi = 1e3 * torch.randn(3, 6), torch.ones(3)
    found, _ = stylegan2.read(read_state(path))
    expected, _ = stylegan2.read(dict(read_state(path)), conv_clamp="none")
    assert torch.equal(found(z, psi), expected(z, psi))


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"synthesis.b8": {"architecture": "resnet"}}, "b8 has architecture 'resnet'; .* 'skip'"),
        ({"synthesis.b4.conv1": {"activation": "relu"}}, "b4.conv1 has activation 'relu'"),
        ({"synthesis.b8.conv1": {"up": 2}}, "b8.conv1 has up '2'; expected 1"),
        ({"mapping.fc1": {"bias_gain": 0.1}}, "mapping.fc1 has bias_gain '0.1'; expected 0.01"),
        ({"synthesis.b8.conv0": {"conv_clamp": 3.0}}, "its layers have several conv_clamp"),
    ],
)
def test_another_network_is_refused_by_what_it_says(
    tmp_path: Path, attributes: dict[str, dict[str, Any]], message: str
) -> None:
    path = written(tmp_path / "x.pkl", stylegan2_file(attributes))
    with pytest.raises(ExportError, match=message):
        stylegan2.read(read_state(path))
