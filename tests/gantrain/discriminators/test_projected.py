from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import tiny_recipe

from ganexport.options import ExportOptions
from ganexport.pipeline import export_run
from ganinfer.errors import ConfigError, ExportError
from ganinfer.lookup import module_names
from gantrain.data.opening import open_dataset
from gantrain.discriminators.projected import Discriminator
from gantrain.extractors._pyramid import freeze
from gantrain.extractors.classifier import dataset_classifier
from gantrain.extractors.inception import InceptionPyramid, InceptionV3
from gantrain.game.config import Config, parse_config
from gantrain.runs.checkpoint import checkpoint_files, load_checkpoint, load_discriminator
from gantrain.training.train import train

REFUSED = {
    "auxiliary_classifier": "D's head is no linear one",
    "minibatch_discrimination": "D's Heads takes no features",
    "minibatch_stddev": "D's Heads takes no features",
    "path_length": "whose paths have a length",
    "style_mixing": "that could be mixed",
}


def recipe(data: Path, objective: str = "hinge", *regularizers: str, **of_model: object) -> Config:
    tree = tiny_recipe(data, batch_size=4, total_kimg=0.008, sample_kimg=1.0, trackers=[])
    tree["model"] |= {"discriminator": {"name": "projected", "width": 2}, **of_model}
    tree["objective"] = {"name": objective}
    tree["regularizers"] = [{"name": name} for name in regularizers]
    return parse_config(tree, where="x.toml")


@pytest.fixture(scope="module")
def projected(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("projected") / "run"
    return train(recipe(shapes, "hinge", "spectral_norm"), run).run


def test_it_sees_through_the_classifier_of_the_metrics(projected: Path, shapes: Path) -> None:
    judge = load_discriminator(projected)
    assert isinstance(judge, Discriminator)
    images = torch.rand(5, 3, 16, 16) * 2 - 1
    trunk = dataset_classifier(open_dataset(shapes)).network.trunk
    maps = judge.pyramid(images)
    assert [map_.shape[1:] for map_ in maps] == [(32, 8, 8), (64, 4, 4), (64, 4, 4)]
    for end, map_ in zip((3, 6, 9), maps, strict=True):
        torch.testing.assert_close(map_, trunk[:end](images))
    assert judge(images, torch.arange(5) % 3).shape == (5, 3)


def test_what_is_frozen_stays(projected: Path, shapes: Path) -> None:
    first = load_checkpoint(checkpoint_files(projected)[0])["discriminator"]
    torch.manual_seed(0)
    config = recipe(shapes, "wgan", "weight_clipping", "historical_averaging", "orthogonal")
    other = train(config, projected.parent / "clipped").run
    second = load_checkpoint(checkpoint_files(other)[-1])["discriminator"]
    frozen = [name for name in first if name.startswith(("pyramid.", "mixing."))]
    assert len(frozen) == 11  # three convolutions with biases, three and two without
    assert all(torch.equal(first[name], second[name]) for name in frozen)
    assert all(not n.startswith(("pyramid.", "mixing.")) for n, _ in _parameters(other))
    assert all(weight.abs().max() <= 0.01 for _, weight in _parameters(other))


def _parameters(run: Path) -> list[tuple[str, torch.Tensor]]:
    return list(load_discriminator(run).named_parameters())


@pytest.mark.parametrize("part", module_names("gantrain.regularizers"))
def test_every_regularizer_trains_it_or_is_refused(shapes: Path, tmp_path: Path, part: str) -> None:
    objective = "nonsaturating" if part == "label_smoothing" else "hinge"
    config = recipe(shapes, objective, part)
    if part in REFUSED:
        with pytest.raises(ConfigError, match=REFUSED[part]):
            train(config, tmp_path / "run")
        return
    train(config, tmp_path / "run")
    longer = replace(config, train=config.train.model_copy(update={"total_kimg": 0.012}))
    assert train(longer, tmp_path / "run").images_seen == 12


@pytest.mark.parametrize("part", module_names("gantrain.objectives"))
def test_every_objective_trains_it(shapes: Path, tmp_path: Path, part: str) -> None:
    options = {"semi_supervised": {"num_classes": 3, "num_labels": 30}}.get(part, {})
    tree = recipe(shapes, part, conditional=part != "semi_supervised").as_dict()
    tree |= {"objective": {"name": part, **options}, "regularizers": [{"name": "spectral_norm"}]}
    assert train(parse_config(tree, where="x.toml"), tmp_path / "run").images_seen == 8


def test_the_maps_of_inception_are_those_before_its_norms_were_folded() -> None:
    torch.manual_seed(0)
    network = InceptionV3().eval()
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_(std=0.1)
            layer.running_var.uniform_(0.5, 1.5)
    images = torch.rand(1, 3, 299, 299) * 2 - 1
    pyramid = InceptionPyramid()
    with torch.no_grad():
        expected = network.maps(images)
        del network.fc
        pyramid.network.load_state_dict(freeze(network).state_dict())
        found = pyramid(images * 128 / 127.5 + 0.5 / 127.5)  # TensorFlow's scale of pixels
    for map_, other, width in zip(found, expected, pyramid.widths, strict=True):
        assert map_.shape[1] == width
        torch.testing.assert_close(map_, other, rtol=1e-3, atol=1e-3)


def test_a_bundle_takes_one_logit_of_an_image(projected: Path, tmp_path: Path) -> None:
    options = ExportOptions(with_discriminator=True, num_images=1000, verify=False)
    with pytest.raises(ExportError, match="gives an image 3 logits"):
        export_run(projected, tmp_path / "x.gan", options)
    assert not (tmp_path / "x.gan").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "resnet"}, r"\[model.discriminator\] name: there is no 'resnet'; it takes proj"),
        ({"name": 3}, r"\[model.discriminator\] name: found 3; expected a string"),
        ({"name": "projected", "extractor": "vgg"}, r"extractor: found 'vgg'"),
        ({"name": "projected", "depth": 3}, "'depth'"),
    ],
)
def test_what_cannot_be_is_told(shapes: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe(shapes, discriminator=options)


def test_without_the_weights_of_inception(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    options = {"name": "projected", "width": 2, "extractor": "inception"}
    with pytest.raises(Exception, match="gan fetch inception"):
        train(recipe(shapes, discriminator=options), tmp_path / "run")
