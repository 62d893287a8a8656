import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_recipe
from safetensors.torch import save_file
from torch.linalg import matrix_norm

from ganinfer.errors import CheckpointError, ConfigError
from gantrain.game.build import build_game, build_optimizer
from gantrain.game.config import parse_config
from gantrain.runs.ancestor import open_ancestor
from gantrain.runs.checkpoint import checkpoint_files, load_checkpoint, load_generator
from gantrain.runs.samples import generate
from gantrain.training.ema import Ema
from gantrain.training.inheritance import inherit
from gantrain.training.summary import what_fits
from gantrain.training.train import train


def begun(data: Path, shape: tuple[int, int], classes: list[str], **start: object):
    """A game of networks of another run, the average and the optimizers, and what was told."""
    tree = tiny_recipe(data) | {"start": start}
    config = parse_config(tree, where="x.toml")
    torch.manual_seed(0)
    game = build_game(config, *shape, len(classes), torch.device("cpu"))
    average = Ema(game.generator, half_life_kimg=1).network
    optimizers = {
        "generator": build_optimizer(config.generator_optimizer, game.generator),
        "discriminator": build_optimizer(config.discriminator_optimizer, game.discriminator),
    }
    return game, average, optimizers, inherit(config, game, average, classes, optimizers)


def state_of(run: Path) -> dict:
    return load_checkpoint(checkpoint_files(run)[-1])


def assert_equal(network: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    assert network.state_dict().keys() == tensors.keys()
    for name, value in network.state_dict().items():
        assert torch.equal(value, tensors[name]), name


@pytest.mark.parametrize(("generator", "part"), [("ema", "ema"), ("raw", "generator")])
def test_networks_of_the_same_shape_are_taken_over_whole(
    shapes: Path, run: Path, generator: str, part: str
) -> None:
    game, average, _, ancestry = begun(
        shapes, (16, 3), ["0", "1", "2"], path=str(run), generator=generator
    )
    saved = state_of(run)
    assert_equal(game.generator, saved[part])
    assert_equal(average, saved["ema"])
    assert_equal(game.discriminator, saved["discriminator"])
    assert not ancestry.fresh
    assert not ancestry.left_out
    assert ancestry.images_seen == 4000


def test_rows_of_classes_go_by_their_names(shapes: Path, run: Path) -> None:
    """Another number of classes, in another order, one of them unknown."""
    game, _, _, ancestry = begun(shapes, (16, 3), ["2", "dog", "0", "1"], path=str(run))
    saved = state_of(run)
    rows = game.generator.norms[0].gain_and_bias.weight
    old = saved["ema"]["norms.0.gain_and_bias.weight"]
    assert torch.equal(rows[[2, 3, 0]], old)
    assert not rows[1].any()  # as a fresh one is
    embed = game.discriminator.head.embed
    name = "head.embed.parametrizations.weight.original"
    assert torch.equal(embed.parametrizations.weight.original[0], saved["discriminator"][name][2])
    assert ancestry.fresh[f"discriminator.{name}"] == "for dog"
    assert "for dog" in ancestry.words()
    # Its spectral norm is that of the rows as they are now.
    embed.eval()
    assert matrix_norm(embed.weight.detach(), 2) == pytest.approx(1, abs=0.02)


def test_what_has_another_shape_is_named_and_fresh(shapes: Path, run: Path) -> None:
    """Grey, of 32 pixels: the layers beside the image, and the discriminator's last ones."""
    game, _, _, ancestry = begun(shapes, (32, 1), ["0", "1", "2"], path=str(run))
    assert "it is (3,) there, (1,) here" in ancestry.fresh["generator.to_image.bias"]
    assert "discriminator.downs.0.parametrizations.weight.original" in ancestry.fresh
    assert 0 < ancestry.loaded < len(ancestry.fresh)
    with torch.no_grad():
        assert game.generator(torch.zeros(2, 16), torch.tensor([0, 1])).isfinite().all()


def test_an_unconditional_run_begins_with_a_conditional_one(shapes: Path, run: Path) -> None:
    game, _, _, ancestry = begun(shapes, (16, 3), [], path=str(run))
    assert "generator.norms.0.gain_and_bias.weight" in ancestry.left_out
    assert ancestry.fresh["generator.norms.0.norm.weight"] == "not there"
    saved = state_of(run)["discriminator"]
    assert torch.equal(game.discriminator.state_dict()["downs.0.bias"], saved["downs.0.bias"])


def test_moments_go_on_if_that_is_asked_for(shapes: Path, run: Path) -> None:
    saved = state_of(run)
    path = {"path": str(run)}
    _, _, optimizers, _ = begun(shapes, (16, 3), ["0", "1", "2"], **path)
    assert not optimizers["generator"].state
    _, _, optimizers, _ = begun(shapes, (16, 3), ["0", "1", "2"], **path, state=True)
    for part, optimizer in optimizers.items():
        ours, theirs = optimizer.state_dict()["state"], saved[f"{part}_optimizer"]["state"]
        assert {str(n) for n in ours} == theirs.keys()
        assert all(torch.equal(ours[int(n)]["exp_avg"], theirs[n]["exp_avg"]) for n in theirs)
    # A weight that is fresh in part begins without.
    _, _, optimizers, ancestry = begun(shapes, (16, 3), ["0", "1", "5"], **path, state=True)
    ours, theirs = optimizers["generator"].state, saved["generator_optimizer"]["state"]
    fresh = [name for name in ancestry.fresh if name.startswith("generator.")]
    assert len(ours) == len(theirs) - len(fresh) > 0


def test_a_run_that_begins_with_another_is_better_than_one_that_does_not(
    shapes: Path, run: Path, tmp_path: Path
) -> None:
    tree = tiny_recipe(shapes, total_kimg=0.2)
    tree["start"] = {"path": str(run)}
    told: list[str] = []
    train(
        parse_config(tree, where="x"),
        tmp_path / "run",
        on_progress=lambda progress: told.extend(progress.notes),
    )
    assert told == [f"begins with {checkpoint_files(run)[-1]} at 4 kimg: 33 tensors fit"]
    tree["start"] = None
    train(parse_config(tree, where="x"), tmp_path / "fresh")
    assert colours_right(tmp_path / "run") > 0.9 > colours_right(tmp_path / "fresh")


def colours_right(run: Path) -> float:
    """Share of the images whose strongest colour is that of their class."""
    labels = np.arange(90) % 3
    images = generate(load_generator(run).network, range(90), labels).astype(float)
    return float(np.mean(images.max(axis=(1, 2)).argmax(axis=1) == labels))


def test_ancestry_is_recorded_from_run_to_run(shapes: Path, run: Path, tmp_path: Path) -> None:
    tree = tiny_recipe(shapes, total_kimg=0.1)
    for path, name in ((run, "child"), (tmp_path / "child", "grandchild")):
        tree["start"] = {"path": str(path)}
        train(parse_config(tree, where="x"), tmp_path / name)
    (event,) = json.loads((tmp_path / "grandchild/history.json").read_text())
    state = state_of(tmp_path / "grandchild")
    assert event == {"images_seen": 0, "begins_with": state["ancestry"]}
    assert state["ancestry"]["path"] == str(checkpoint_files(tmp_path / "child")[-1])
    parent = state["ancestry"]["ancestry"]
    assert parent["sha256"] == load_generator(run).sha256
    assert parent["images_seen"] == 4000
    # It goes on without being told again what it began with, and keeps that.
    tree["start"], tree["train"]["total_kimg"] = None, 0.2
    train(parse_config(tree, where="x"), tmp_path / "grandchild")
    assert state_of(tmp_path / "grandchild")["ancestry"] == state["ancestry"]
    tree["start"] = {"path": str(run)}
    with pytest.raises(CheckpointError, match=r"start.path: it has '.*child', this config"):
        train(parse_config(tree, where="x"), tmp_path / "grandchild")


@pytest.mark.parametrize("prefix", ["", "generator."])
def test_weights_as_such_are_a_generators(
    shapes: Path, run: Path, tmp_path: Path, prefix: str
) -> None:
    saved = state_of(run)["ema"]
    save_file({f"{prefix}{name}": t for name, t in saved.items()}, tmp_path / "g.safetensors")
    start = {"path": str(tmp_path / "g.safetensors")}
    game, average, _, ancestry = begun(shapes, (16, 3), ["0", "1", "2"], **start)
    assert_equal(game.generator, saved)
    assert_equal(average, saved)
    assert {name.partition(".")[0] for name in ancestry.fresh} == {"discriminator"}
    with pytest.raises(CheckpointError, match="weights alone, without the state of optimizers"):
        begun(shapes, (16, 3), ["0", "1", "2"], **start, state=True)


class Harm:
    def __reduce__(self) -> tuple:
        return Path.touch, (Path("harmed"),)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("x.pt", "no weights to begin with .* may run code"),
        ("x.safetensors", "no weights to begin with .* may run code"),
        ("x.pkl", r"names pathlib\S*.Path.*, which no StyleGAN needs; nothing in the file was run"),
    ],
)
def test_a_pickle_is_not_run(
    shapes: Path, tmp_path: Path, monkeypatch, name: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(pickle.dumps(Harm()))
    tree = tiny_recipe(shapes) | {"start": {"path": name}}
    with pytest.raises(CheckpointError, match=rf"{name}: {words}"):
        train(parse_config(tree, where="x"), Path("run"))
    assert {path.name for path in tmp_path.iterdir()} == {name}


def test_a_bundle_is_no_beginning(bundle: Path) -> None:
    with pytest.raises(CheckpointError, match="begin with the run that it was exported from"):
        open_ancestor(bundle)


def test_a_run_of_which_nothing_fits_is_refused(shapes: Path, run: Path, tmp_path: Path) -> None:
    tree = tiny_recipe(shapes) | {"start": {"path": str(run)}}
    tree["model"] = {"name": "mlp"}
    with pytest.raises(CheckpointError, match="no weights of its layers fit these networks"):
        train(parse_config(tree, where="x"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_fits_is_told_without_training(shapes: Path, run: Path) -> None:
    tree = tiny_recipe(shapes) | {"start": {"path": str(run)}}
    ancestry = what_fits(parse_config(tree, where="x"))
    assert ancestry.words().endswith("at 4 kimg: 33 tensors fit")


def test_frozen_layers_keep_their_weights(shapes: Path, run: Path, tmp_path: Path) -> None:
    frozen = ["discriminator.downs.0", "generator.project", "generator.to_image.bias"]
    tree = tiny_recipe(shapes, total_kimg=0.2, freeze=frozen) | {"start": {"path": str(run)}}
    train(parse_config(tree, where="x"), tmp_path / "run")
    before, after = state_of(run), state_of(tmp_path / "run")
    for part, source in (("generator", "ema"), ("discriminator", "discriminator")):
        game = build_game(parse_config(tree, where="x"), 16, 3, 3, torch.device("cpu"))
        for name, weight in getattr(game, part).named_parameters():
            same = torch.equal(before[source][name], after[part][name])
            assert same == any(f"{part}.{name}".startswith(layer) for layer in frozen), name
            assert weight.requires_grad != same


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["discriminator.down.0"], r"no weights 'discriminator.down.0'; did you mean 'discrim.*"),
        (["downs.0"], r"no weights 'downs.0'; .*--dry-run shows the layers"),
        (["generator"], r"nothing of the generator is left to train"),
    ],
)
def test_what_cannot_be_frozen_is_refused(shapes: Path, tmp_path, names, words) -> None:
    config = parse_config(tiny_recipe(shapes, freeze=names), where="x.toml")
    with pytest.raises(ConfigError, match=rf"x.toml \[train\] freeze: .*{words}"):
        train(config, tmp_path / "run")


def test_other_data_of_other_classes_trains(shapes: Path, run: Path, tmp_path: Path) -> None:
    """The second and the third class, under their names, and no first one."""
    data = Path(shutil.copytree(shapes, tmp_path / "data"))
    description = json.loads((data / "dataset.json").read_text())
    (data / "dataset.json").write_text(json.dumps(description | {"classes": ["1", "2"]}))
    np.save(data / "labels.npy", np.load(data / "labels.npy") % 2)
    tree = tiny_recipe(data, total_kimg=0.2) | {"start": {"path": str(run)}}
    train(parse_config(tree, where="x"), tmp_path / "run")
    state = state_of(tmp_path / "run")
    assert state["ema"]["norms.0.gain_and_bias.weight"].shape[0] == 2
    assert not state["ancestry"]["fresh"].keys() & {"generator.norms.0.gain_and_bias.weight"}
