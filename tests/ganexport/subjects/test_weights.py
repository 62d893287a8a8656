"""Weights as people save them: found, fitted, and said which."""

import argparse
import copy
from collections import OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ganexport.subjects.weights import load_weights, read_state
from ganinfer.errors import ExportError


class G(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.main = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))

    def forward(self, z: Tensor) -> Tensor:
        return self.main(z)


def made(seed: int = 0) -> G:
    torch.manual_seed(seed)
    module = G().train()
    module(torch.randn(8, 4))  # batch norm has seen something
    return module


NETWORK = made()
STATE = NETWORK.state_dict()
OTHER = made(1).state_dict()  # that fits, and holds something else
UNLIKE = nn.Linear(7, 5).state_dict()


def prefixed(prefix: str, state: dict[str, Tensor] = STATE) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in state.items()}


def saved(tree: object, tmp_path: Path, **options: object) -> Path:
    torch.save(tree, tmp_path / "w.pt", **options)
    return tmp_path / "w.pt"


def load(path: Path, key: str | None = None, module: nn.Module | None = None) -> str:
    """Load into a network of other weights; every one must be the file's. What was said."""
    said: list[str] = []
    target = made(2) if module is None else module
    load_weights(target, path, key, say=said.append)
    loaded = {name: v for name, v in target.state_dict().items() if "num_batches" not in name}
    for (name, value), expected in zip(
        loaded.items(), (v for n, v in STATE.items() if "num_batches" not in n), strict=True
    ):
        assert torch.equal(value, expected), name
    return "\n".join(said)


@pytest.mark.parametrize(
    "prefix",
    [
        *("module.", "_orig_mod.", "netG.", "generator.", "G.", "model.", "main_network."),
        *("module._orig_mod.", "model.generator.module.", "a.b.c.d."),
    ],
)
def test_a_prefix_is_left_out_and_said(prefix: str, tmp_path: Path) -> None:
    said = load(saved(prefixed(prefix), tmp_path))
    assert said == f"{tmp_path}/w.pt: took {prefix[:-1]}: 9 tensors, 76 parameters"


def test_names_that_fit_are_taken_as_they_are_in_silence(tmp_path: Path) -> None:
    assert load(saved(STATE, tmp_path)) == ""


@pytest.mark.parametrize(
    "wrap",
    [
        nn.DataParallel,
        lambda module: nn.ModuleDict({"model": nn.ModuleDict({"net": module})}),
        torch.compile,
    ],
    ids=["DataParallel", "nested", "compile"],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch.compile's own
def test_the_network_may_have_the_prefix_that_the_file_lacks(wrap, tmp_path: Path) -> None:
    load(saved(STATE, tmp_path), module=wrap(made(2)))
    load(saved(prefixed("netG."), tmp_path), module=wrap(made(2)))


def test_the_file_may_lack_what_all_names_begin_with(tmp_path: Path) -> None:
    said = load(saved(NETWORK.main.state_dict(), tmp_path))
    assert said.endswith("w.pt: its names are taken for those of G that begin with main.")


@pytest.mark.parametrize(
    "inner", ["main.module.", "main._orig_mod.", "main._fsdp_wrapped_module.module."]
)
def test_wrappers_inside_of_names_are_left_out(inner: str, tmp_path: Path) -> None:
    load(saved({name.replace("main.", inner): v for name, v in STATE.items()}, tmp_path))


def test_a_submodule_that_is_called_module_stays_what_it_is(tmp_path: Path) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.module = nn.Linear(4, 4), nn.Linear(4, 4)

    torch.manual_seed(0)
    theirs, ours = Own(), Own()
    load_weights(ours, saved(prefixed("module.", theirs.state_dict()), tmp_path))
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value)


@pytest.mark.parametrize(
    ("tree", "key"),
    [
        ({"netG_state_dict": STATE, "netD_state_dict": UNLIKE, "epoch": 5}, "netG_state_dict"),
        (
            {"epoch": 3, "generator": {"state_dict": STATE}, "optimizer": {"lr": 1e-4}},
            "generator.state_dict",
        ),
        (
            {
                "state_dict": {**prefixed("generator."), "discriminator.x": torch.zeros(3)},
                "hyper_parameters": {"lr": 1e-4},
                "callbacks": {"best": torch.tensor(0.3)},
            },
            "state_dict.generator",
        ),
        ([UNLIKE, STATE], "1"),
        ({"models": [{"D": UNLIKE}, {"G": prefixed("module.")}]}, "models.1.G.module"),
        ((0, OrderedDict(STATE)), "1"),
        ({"G": list(STATE.items()), "D": list(UNLIKE.items())}, "G"),
        ({"ema_0.999": prefixed("ema_model.module.")}, "ema_0.999.ema_model.module"),
        ({"n_averaged": torch.tensor(3), **prefixed("module.")}, "module"),
    ],
)
def test_the_one_that_fits_is_found_by_itself(tree: object, key: str, tmp_path: Path) -> None:
    path = saved(tree, tmp_path)
    assert load(path) == f"{path}: took {key}: 9 tensors, 76 parameters"
    assert load(path, key) == ""


def test_a_key_may_end_above_the_state_dict(tmp_path: Path) -> None:
    path = saved({"a": [OTHER, {"b_0.5": {"c": STATE}}], "d": OTHER}, tmp_path)
    for key in ("a.1", "a.1.b_0.5"):
        assert load(path, key) == f"{path}: took a.1.b_0.5.c: 9 tensors, 76 parameters"
    with pytest.raises(ExportError, match=r"2 state .*:\n    a.0: 9 .*\n    a.1.b_0.5.c: 9"):
        load_weights(made(), path, "a")


def test_what_an_optimizer_keeps_is_not_taken_for_weights(tmp_path: Path) -> None:
    module = nn.Linear(4, 3)
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    path = saved({"optim": optimizer.state_dict(), "g": module.state_dict()}, tmp_path)
    assert read_state(path).keys() == {"weight", "bias"}
    with pytest.raises(ExportError) as error:
        load_weights(made(), path)
    assert "2 missing" not in str(error.value)
    assert "none of" not in str(error.value)  # there is one, g


@pytest.mark.parametrize(
    "key",
    [
        *("ema", "g_ema", "G_ema", "netG_ema", "ema_model", "averaged", "emaG", "generatorEMA"),
        *("EMA", "g_running", "GE", "model_avg", "swa_model"),
    ],
)
def test_of_several_that_fit_the_averaged_one_is_taken_and_said(key: str, tmp_path: Path) -> None:
    path = saved({"g": OTHER, key: STATE, "d": UNLIKE}, tmp_path)
    said = load(path)
    assert said.endswith(
        f": took {key}: 9 tensors, 76 parameters; the averaged one of 2 that fit G"
    )
    flat = saved({**prefixed("online.", OTHER), **prefixed(f"{key}."), "step": 3}, tmp_path)
    assert "the averaged one of 2" in load(flat)
    assert load(flat, key) == ""
    kept = saved({"g": STATE, key: OTHER}, tmp_path)
    assert load(kept, "g") == ""


def test_an_averaged_one_that_almost_fits_is_spoken_of(tmp_path: Path) -> None:
    parameters = {name: v for name, v in OTHER.items() if "running" not in name}
    why = "averaged, does not fit: 2 missing ['main.1.running_mean', 'main.1.running_var'], 0 unk"
    for tree in (
        {"g": STATE, "g_ema": parameters, "d_ema": UNLIKE},
        {"state_dict": prefixed("g.") | prefixed("g_ema.", parameters)},
    ):
        took, spoken = load(saved(tree, tmp_path)).splitlines()
        assert "g: 9 tensors" in took
        assert why in spoken
    assert "fit" not in load(saved({"g_ema": STATE, "ema": parameters}, tmp_path))


@pytest.mark.parametrize("key", ["schema", "member", "gamma_net", "emanet", "generator"])
def test_a_name_that_only_looks_like_averaged(key: str, tmp_path: Path) -> None:
    path = saved({"g": OTHER, key: STATE}, tmp_path)
    with pytest.raises(ExportError, match="2 state dicts that fit G"):
        load_weights(made(), path)


def test_several_that_fit_are_listed_with_their_sizes_and_chosen_by_key(tmp_path: Path) -> None:
    path = saved({"first": OTHER, "nets": {"second": STATE}, "d": UNLIKE}, tmp_path)
    with pytest.raises(ExportError) as error:
        load_weights(made(), path)
    assert str(error.value) == (
        f"{path}: 2 state dicts that fit G; say which with --weights-key:\n"
        "    first: 9 tensors, 76 parameters\n    nets.second: 9 tensors, 76 parameters"
    )
    assert load(path, "nets.second") == ""
    assert load(path, "nets").endswith("took nets.second: 9 tensors, 76 parameters")
    two = {"ema_0.99": OTHER, "ema_0.999": STATE}
    with pytest.raises(ExportError, match="2 state dicts that fit G"):
        load_weights(made(), saved(two, tmp_path))
    assert load(saved(two, tmp_path), "ema_0.999") == ""


def test_several_of_the_same_numbers_are_one(tmp_path: Path) -> None:
    path = saved([STATE, copy.deepcopy(STATE)], tmp_path)
    assert load(path).endswith("took 0: 9 tensors, 76 parameters; all of 2 that fit G are alike")


def test_the_files_own_names_can_be_asked_for(tmp_path: Path) -> None:
    assert load(saved({**STATE, "ema": OTHER}, tmp_path), ".") == ""
    assert load(saved({**OTHER, "ema": STATE}, tmp_path)).endswith("averaged one of 2 that fit G")


@pytest.mark.parametrize(
    "extra",
    [
        *(3, 2.5, "text", None, True, b"bytes", 1 << 80, complex(1, 2), {1, 2}),
        *(np.float64(12.3), np.float32(1), np.int64(3), np.bool_(True), np.arange(3.0)),
        *(np.array(["a"]), np.dtype("f4"), np.random.default_rng(0).bit_generator.state),
        *(argparse.Namespace(lr=1e-4, betas=(0, 0.99)), Path("runs"), torch.__version__),
        *(defaultdict(list, a=[1]), defaultdict(float, x=0.5), OrderedDict(a=1)),
        *(torch.Size([1]), torch.float16, torch.device("cpu"), torch.get_rng_state()),
        [{"a": (1, [2])}],
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_lies_beside_tensors_is_passed_over(extra: object, tmp_path: Path) -> None:
    load(saved({"args": extra, "g_ema": STATE}, tmp_path))
    if not isinstance(extra, Tensor):
        load(saved({**STATE, "n": extra}, tmp_path))


def test_counters_of_batch_norm_do_not_matter(tmp_path: Path) -> None:
    counter = "main.1.num_batches_tracked"
    load(saved({n: v for n, v in STATE.items() if n != counter}, tmp_path))
    load(saved({**STATE, counter: 3}, tmp_path))
    load(saved({**STATE, counter: torch.tensor([3])}, tmp_path))
    load(saved({**STATE, "main.0.num_batches_tracked": torch.tensor(3)}, tmp_path))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_become_the_networks_own(dtype: torch.dtype, tmp_path: Path) -> None:
    path = saved({name: value.to(dtype) for name, value in STATE.items()}, tmp_path)
    module = made(1)
    load_weights(module, path)
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            assert value.dtype == torch.float32
            assert torch.equal(value, STATE[name].to(dtype).float())
    assert {v.dtype for v in read_state(path).values()} == {torch.float32}


def test_tensors_that_want_gradients(tmp_path: Path) -> None:
    own = {n: v.clone().requires_grad_(v.is_floating_point()) for n, v in STATE.items()}
    path = saved(own, tmp_path)
    load(path)
    load(saved(dict(NETWORK.named_parameters()) | dict(NETWORK.named_buffers()), tmp_path))
    assert not any(v.requires_grad for v in read_state(path).values())


def test_old_files_of_torch_and_safetensors_under_any_name(tmp_path: Path) -> None:
    load(saved({"g": STATE}, tmp_path, _use_new_zipfile_serialization=False))
    for name in ("w.safetensors", "w.bin"):
        save_file(prefixed("module."), tmp_path / name)
        assert "took module" in load(tmp_path / name)
    torch.save(STATE, tmp_path / "torch.safetensors")
    load(tmp_path / "torch.safetensors")


def test_one_tensor_under_two_names_need_be_there_once(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
            self.two.weight = self.one.weight

    torch.manual_seed(0)
    theirs, ours = Tied(), Tied()
    save_model(theirs, str(tmp_path / "w.safetensors"))  # leaves the second out
    load_weights(ours, tmp_path / "w.safetensors")
    assert torch.equal(ours.two.weight, theirs.one.weight)


def test_a_state_of_the_modules_own_is_no_weight(tmp_path: Path) -> None:
    class Extra(G):
        def get_extra_state(self) -> dict[str, int]:
            return {"steps": 3}

        def set_extra_state(self, state: object) -> None: ...

    load_weights(Extra(), saved(STATE, tmp_path))
    load_weights(Extra(), saved(Extra().state_dict(), tmp_path))


def test_spectral_norm_of_both_kinds(tmp_path: Path) -> None:
    def normed() -> nn.Module:
        return nn.Sequential(
            spectral_norm(nn.Linear(4, 4)), torch.nn.utils.spectral_norm(nn.Linear(4, 4))
        )

    theirs, ours = normed(), normed()
    load_weights(ours, saved({"g": prefixed("module.", theirs.state_dict())}, tmp_path))
    z = torch.randn(3, 4)
    assert torch.equal(theirs.eval()(z), ours.eval()(z))


def test_weights_that_do_not_fit_are_refused_with_what_is_amiss(tmp_path: Path) -> None:
    short = {name: value for name, value in STATE.items() if name != "main.3.bias"}
    wide = {**STATE, "main.3.bias": torch.zeros(5)}
    kind = {**STATE, "main.3.bias": torch.zeros(3, dtype=torch.int64)}
    for tree, words in (
        (short, "not the weights of G: 1 missing .'main.3.bias'., 0 unknown"),
        ({**STATE, "x.y": torch.zeros(1)}, "0 missing .., 1 unknown .'x.y'."),
        (wide, r"1 of other shapes .'main.3.bias \(5,\) float32, expected \(3,\) float32'."),
        (kind, r"main.3.bias \(3,\) int64, expected \(3,\) float32"),
        (prefixed("module.", short), "1 missing .'main.3.bias'., 0 unknown"),
        (
            {"a": short, "b": UNLIKE},
            "none of 2 state dicts fits; nearest is a: 1 missing .'main.3.bias'.*They are, by"
            " --weights-key:\n    a: 8 tensors, 73 parameters\n    b: 2 tensors, 40 parameters",
        ),
        ({"epoch": 3}, "no state dict; found .'epoch'."),
        ([1, 2], "no state dict; found list"),
        (list(STATE.values()), "no state dict; found list"),
        (torch.zeros(3), "no state dict; found Tensor"),
    ):
        with pytest.raises(ExportError, match=words):
            load_weights(made(), saved(tree, tmp_path))
    path = saved({"g": STATE, "epoch": 3}, tmp_path)
    with pytest.raises(ExportError, match="no 'ema' in it; found, by --weights-key:\n    g: 9 ten"):
        load_weights(made(), path, "ema")
    with pytest.raises(ExportError, match="no state dict under 'epoch'"):
        load_weights(made(), path, "epoch")


def test_a_name_in_a_file_does_nothing_to_a_terminal(tmp_path: Path) -> None:
    path = saved({"\x1b[2Ja": STATE, "\x1b[2Jb": OTHER, "c" * 999: UNLIKE}, tmp_path)
    with pytest.raises(ExportError) as error:
        load_weights(made(), path)
    assert "'\\x1b[2Ja': 9 tensors" in str(error.value)
    with pytest.raises(ExportError) as error:
        load_weights(nn.Linear(9, 9), path)
    assert "\x1b" not in str(error.value)
    assert len(max(str(error.value).splitlines(), key=len)) < 500


def test_attributes_of_what_a_file_holds_do_nothing(tmp_path: Path) -> None:
    state = OrderedDict((name, value.clone()) for name, value in STATE.items())
    methods = {"i_ems": "items", "d_tach": "detach", "f_oat": "float", "k_ys": "keys"}
    for holder in (state, *state.values()):
        vars(holder).update(dict.fromkeys(methods, 3))
    path = saved({"g": state}, tmp_path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    for ours, theirs in methods.items():
        content = content.replace(ours.encode(), theirs.encode())
    path.write_bytes(content)
    found = torch.load(path)["g"]
    assert found.items == found["main.0.bias"].detach == 3
    load(path)
    assert read_state(path).keys() == STATE.keys()


def test_nothing_is_loaded_if_not_all_is(tmp_path: Path) -> None:
    module = made(1)
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(ExportError):
        load_weights(module, saved({**OTHER, "main.3.bias": torch.zeros(5)}, tmp_path))
    assert all(torch.equal(before[n], v) for n, v in module.state_dict().items())


def test_modules_that_nothing_can_be_loaded_into(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="ReLU: has no weights; leave --weights out"):
        load_weights(nn.ReLU(), saved(STATE, tmp_path))
    with pytest.raises(ExportError, match="LazyLinear: weight has no shape yet; call it once"):
        load_weights(nn.LazyLinear(3), saved(STATE, tmp_path))


def test_a_file_that_holds_itself(tmp_path: Path) -> None:
    tree: dict[str, object] = {"g": STATE}
    tree["self"] = tree
    deep: object = STATE
    for _ in range(200):
        deep = [deep]
    load(saved(tree, tmp_path))
    with pytest.raises(ExportError, match="no state dict"):
        load_weights(made(), saved(deep, tmp_path))


def test_an_importer_gets_the_only_one_or_the_averaged_one(tmp_path: Path) -> None:
    said: list[str] = []

    def names(tree: object, key: str | None = None) -> list[str]:
        said.clear()
        return list(read_state(saved(tree, tmp_path), key, say=said.append))

    flat = list(STATE)
    assert names(STATE) == flat
    assert said == []
    assert names({"state_dict": STATE, "step": torch.tensor(3.0), "args": 3}) == flat
    assert said == [f"{tmp_path}/w.pt: took state_dict: 9 tensors, 76 parameters"]
    assert names({"g": OTHER, "d": {"a.b": torch.ones(1)}, "g_ema": STATE}) == flat
    assert said[0].endswith("took g_ema: 9 tensors, 76 parameters; the averaged one of 3")
    assert names({"a": {"b": STATE}, "c": STATE | {"x.y": torch.ones(1)}}, "a.b") == flat
    assert said == []
    assert names(prefixed("module."), "module") == flat
    with pytest.raises(ExportError, match="2 state dicts; say which with --weights-key:\n    g: 9"):
        names({"g": STATE, "d": {"a.b": torch.ones(1)}})


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<f2"])
def test_arrays_of_numpy_are_weights_where_a_dict_holds_no_tensors(dtype, tmp_path: Path) -> None:
    state = {name: value.half().float() for name, value in STATE.items()}
    arrays = {n: np.asfortranarray(v.numpy()).astype(dtype) for n, v in state.items()}
    module = made(2)
    load_weights(module, saved({"epoch": 3, "g": arrays}, tmp_path))
    for name, value in module.state_dict().items():
        assert torch.equal(value, state[name]) or "num_batches" in name


def test_tensors_without_names_are_told_of(tmp_path: Path) -> None:
    path = saved({"decay": 0.9, "shadow_params": list(STATE.values())}, tmp_path)
    with pytest.raises(ExportError, match="tensors without names in shadow_params.*state_dict"):
        load_weights(made(2), path)


def test_what_wrappers_put_before_all_names_is_left_out_for_importers_too(tmp_path: Path) -> None:
    assert read_state(saved(prefixed("module._orig_mod."), tmp_path)).keys() == STATE.keys()
    assert "module" in read_state(saved({"module": torch.ones(1)}, tmp_path))
