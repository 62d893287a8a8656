"""Every model with every objective and every regularizer: trained, saved, resumed, exported.

Parametrised over the folders, so that a new part is tested by existing.
"""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import SMALL, draw_shapes, tiny_recipe

from ganexport.graph import tracing as graph
from ganexport.subjects.rewrites import rewrite
from ganinfer.drawing.images import to_uint8
from ganinfer.errors import ConfigError
from ganinfer.lookup import module_names
from gantrain.data.prepare import prepare
from gantrain.game.build import build_game
from gantrain.game.config import Config, parse_config
from gantrain.runs.checkpoint import checkpoint_files, load_checkpoint, load_generator
from gantrain.training.train import train

MODELS = module_names("gantrain.models")
OBJECTIVES = module_names("gantrain.objectives")
REGULARIZERS = module_names("gantrain.regularizers")

# What a part needs to be told on the data at hand.
OPTIONS: dict[str, dict[str, Any]] = {
    "semi_supervised": {"num_classes": 3, "num_labels": 30},
    "virtual_batch_norm": {"reference_size": 4},
}
# Combinations that mean nothing, and what the refusal says.
REFUSED = {
    ("wgan", None): "a Wasserstein critic must be Lipschitz",
    ("log_odds", "label_smoothing"): r"D = sigmoid\(logit\)",
    ("no_batch_norm", "virtual_batch_norm"): "no batch norm of maps to replace",
    ("no_zero_point", "ada"): "gives them no zero point",
    ("paired", "top_k"): "compares images in pairs",
    ("unconditional", "auxiliary_classifier"): "no classes to find",
}
# What needs a generator with styles, and what does not know its layers.
OF_STYLES = {"path_length": "whose paths have a length", "style_mixing": "that could be mixed"}
NOT_OF_STYLES = {
    "auxiliary_classifier": "D's head is no linear one",
    "orthogonal": "no layer of torch.nn with filters",
    "spectral_norm": "no layer of torch.nn to normalise",
}
LOG_ODDS = {"minimax", "nonsaturating", "semi_supervised"}
KEEPS_LIPSCHITZ = {"gradient_penalty", "weight_clipping", "spectral_norm"}
NO_BATCH_NORM = {"mlp", "r3gan", "stylegan2"}


@pytest.fixture(scope="module")
def tiny_shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shapes at 8x8: what is tested here does not depend on the size, but its time does."""
    folder = tmp_path_factory.mktemp("tiny")
    images, labels = draw_shapes(60, seed=0)
    np.savez(folder / "shapes.npz", images=images, labels=labels)
    return prepare(str(folder / "shapes.npz"), folder / "data", resolution=8).path


def recipe(data: Path, model: str, objective: str, *regularizers: str, **options: Any) -> Config:
    """Two steps with small networks."""
    short = {"batch_size": 4, "total_kimg": 0.008, "sample_kimg": 1.0, "trackers": []}
    tree = tiny_recipe(data, **short, **options)
    generator, discriminator = SMALL.get(model, ({}, {}))
    tree["model"] = {
        "name": model,
        "conditional": objective != "semi_supervised",
        "generator": generator,
        "discriminator": discriminator,
    }
    tree["objective"] = {"name": objective, **OPTIONS.get(objective, {})}
    tree["regularizers"] = [{"name": name, **OPTIONS.get(name, {})} for name in regularizers]
    return parse_config(tree, where="x.toml")


def refusal(model: str, objective: str, regularizer: str) -> str | None:
    """What the message must say if these exclude each other."""
    if objective == "wgan" and regularizer not in KEEPS_LIPSCHITZ:
        return REFUSED["wgan", None]
    if regularizer == "ada" and objective in {"relativistic", "least_squares", "f_gan"}:
        return REFUSED["no_zero_point", "ada"]
    if regularizer == "top_k" and objective == "relativistic":
        return REFUSED["paired", "top_k"]
    if regularizer == "auxiliary_classifier" and objective == "semi_supervised":
        return REFUSED["unconditional", "auxiliary_classifier"]
    if regularizer == "label_smoothing" and objective not in LOG_ODDS:
        return REFUSED["log_odds", "label_smoothing"]
    if (objective, regularizer) == ("semi_supervised", "spectral_norm"):
        return None  # it has a head of torch's own layers
    if model == "stylegan2" and regularizer in NOT_OF_STYLES:
        return NOT_OF_STYLES[regularizer]
    if model != "stylegan2" and regularizer in OF_STYLES:
        return OF_STYLES[regularizer]
    if regularizer == "virtual_batch_norm" and model in NO_BATCH_NORM:
        return REFUSED["no_batch_norm", "virtual_batch_norm"]
    return None


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_combination_trains_saves_and_resumes_or_is_refused(
    tiny_shapes: Path, tmp_path: Path, monkeypatch, model: str, objective: str
) -> None:
    # The pictures are another test's business; here they would take the most time.
    monkeypatch.setattr("gantrain.training.record.Recorder.picture", lambda *_: None)
    for regularizer in REGULARIZERS:
        run = tmp_path / regularizer
        config = recipe(tiny_shapes, model, objective, regularizer)
        if message := refusal(model, objective, regularizer):
            with pytest.raises(ConfigError, match=message):
                train(config, run)
            assert not checkpoint_files(run)
            continue
        train(config, run)
        first = load_checkpoint(checkpoint_files(run)[-1])
        longer = recipe(tiny_shapes, model, objective, regularizer)
        longer = parse_config(
            {**longer.as_dict(), "train": {**longer.train.model_dump(), "total_kimg": 0.012}},
            where="x.toml",
        )
        assert train(longer, run).images_seen == 12
        second = load_checkpoint(checkpoint_files(run)[-1])
        for network in ("generator", "discriminator"):
            assert first[network].keys() == second[network].keys()
            moved = [not torch.equal(first[network][k], second[network][k]) for k in first[network]]
            assert any(moved), f"{network} stands still under {regularizer}"


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("objective", "regularizers"),  # conditional, but for the semi-supervised one
    [
        ("hinge", ()),
        ("hinge", ("spectral_norm",)),
        ("hinge", ("virtual_batch_norm",)),
        ("semi_supervised", ()),
        ("semi_supervised", ("virtual_batch_norm",)),
    ],
)
def test_every_generator_exports_to_the_same_images(
    tiny_shapes: Path, tmp_path: Path, model: str, regularizers: tuple[str, ...], objective: str
) -> None:
    """What changes a generator's graph: its model, its classes, and these regularizers."""
    if "virtual_batch_norm" in regularizers and model in NO_BATCH_NORM:
        pytest.skip("refused: no batch norm to replace")
    if "spectral_norm" in regularizers and model == "stylegan2":
        pytest.skip("refused: no layers to normalise")
    config = recipe(tiny_shapes, model, objective, *regularizers)
    tree = config.as_dict()
    for part in tree["regularizers"]:
        if part["name"] == "spectral_norm":
            part["networks"] = ["generator"]
    run = train(parse_config(tree, where="x.toml"), tmp_path / "run").run
    trained = load_generator(run)
    file = graph.to_onnx(
        rewrite(graph.bake(trained)), z_dim=trained.network.z_dim, num_classes=len(trained.classes)
    )
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    feed = {"z": rng.standard_normal((5, trained.network.z_dim)).astype(np.float32)}
    y = None
    if trained.classes:
        feed["y"] = np.array([0, 1, 2, 1, 0])
        y = torch.from_numpy(feed["y"])
    (found,) = session.run(None, feed)
    with torch.no_grad():
        expected = to_uint8(trained.network(torch.from_numpy(feed["z"]), y).numpy())
    steps = np.abs(found.astype(int) - expected.transpose(0, 2, 3, 1))
    assert steps.max() <= 1
    assert (steps > 0).mean() < 5e-3


def test_regularizers_that_exclude_each_other_are_refused(tiny_shapes: Path) -> None:
    pairs = list(itertools.combinations(sorted({*REGULARIZERS} - {*OF_STYLES}), 2))
    refused = []
    for pair in pairs:
        config = recipe(tiny_shapes, "dcgan", "nonsaturating", *pair)
        try:
            build_game(config, 8, 3, 3, torch.device("cpu"))
        except ConfigError:
            refused.append(pair)
    assert refused == [("feature_matching", "top_k"), ("spectral_norm", "weight_clipping")]
