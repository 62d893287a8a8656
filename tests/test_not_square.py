"""Images that are 16 high and 32 wide, from the picture to the picture."""

from pathlib import Path

import numpy as np
import pytest
from conftest import CLASSES, SMALL, draw_shapes, tiny_recipe
from PIL import Image
from typer.testing import CliRunner

from ganexport.cli.gan import app
from ganexport.options import ExportOptions
from ganexport.pipeline import export_run
from ganinfer import Sampler
from ganinfer.errors import ConfigError
from gantrain.data.dataset import Dataset
from gantrain.evaluation.evaluate import evaluate
from gantrain.game.config import Config, parse_config
from gantrain.models import dcgan
from gantrain.report.page import write_report
from gantrain.runs.checkpoint import checkpoint_files, load_generator
from gantrain.training.summary import summarize
from gantrain.training.train import train


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each class, of a shape beside noise: 16 high and 32 wide, but for the first."""
    folder = tmp_path_factory.mktemp("pictures")
    images, labels = draw_shapes(90, seed=0)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        wide = Image.fromarray(np.concatenate([image, image[::-1]], axis=1))
        place = folder / CLASSES[label] / f"{number:03}.png"
        place.parent.mkdir(exist_ok=True)
        (wide if number else wide.resize((64, 48))).save(place)
    return folder


@pytest.fixture(scope="module")
def wide(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """These pictures, prepared."""
    place = tmp_path_factory.mktemp("wide") / "data"
    command = ["prepare", str(pictures), str(place), "--resolution", "16x32"]
    said = CliRunner().invoke(app, command).output
    assert "90 images 16x32x3, 3 classes" in said
    return place


def recipe_of(wide: Path, model: str, **options: object) -> Config:
    tree = tiny_recipe(wide, **options)
    generator, discriminator = SMALL[model]
    tree["model"] = {"name": model, "generator": generator, "discriminator": discriminator}
    return parse_config(tree, where="wide.toml")


@pytest.fixture(scope="module")
def run(wide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps, and one more when it goes on; nothing is augmented but by what knows shapes."""
    tree = tiny_recipe(wide, total_kimg=0.04, sample_kimg=0.02)
    tree["regularizers"] += [{"name": "diffaugment"}, {"name": "ada", "initial_p": 0.5}]
    folder = tmp_path_factory.mktemp("runs") / "wide"
    train(parse_config(tree, where="wide.toml"), folder)
    tree["train"]["total_kimg"] = 0.06
    assert train(parse_config(tree, where="wide.toml"), folder).images_seen == 60
    return folder


def test_a_run_goes_on_and_keeps_the_shape_of_its_data(wide: Path, run: Path) -> None:
    assert Dataset(wide).images.shape == (90, 16, 32, 3)
    trained = load_generator(run)
    assert trained.resolution == (16, 32)
    assert [int(file.stem) for file in checkpoint_files(run)] == [40, 60]
    with Image.open(run / "samples/000000000060.png") as sheet:  # ten rows, twice as large
        assert sheet.size == (3 * 2 * 32 + 8, 10 * 2 * 16 + 22)


@pytest.mark.parametrize("model", ["resnet", "r3gan", "mlp"])
def test_what_a_model_is_made_of_is_shown_before_it_is_trained(wide: Path, model: str) -> None:
    generator, discriminator = summarize(recipe_of(wide, model))
    assert generator.macs > 0
    assert discriminator.rows[-1].name.startswith("head")


class SquareGenerator(dcgan.Generator):
    only_square = True


class Square:
    """A model of one's own."""

    Generator, Discriminator = SquareGenerator, dcgan.Discriminator


def test_a_model_of_square_images_alone_says_so(wide: Path) -> None:
    tree = tiny_recipe(wide)
    tree["model"]["name"] = f"{__name__}:Square"
    with pytest.raises(ConfigError, match=r"square images alone, .*16x32 .*--resolution 16"):
        summarize(parse_config(tree, where="wide.toml"))


@pytest.mark.slow
def test_it_is_measured_exported_and_sampled_in_its_shape(
    wide: Path, pictures: Path, run: Path, tmp_path: Path
) -> None:
    record = evaluate(run, num_images=60, metrics=["fid", "kid", "spectral_distance"])
    assert all(np.isfinite(value) for value in record.values.values())
    of_pictures = evaluate(wide, wide, metrics=["fid"], num_images=60)
    assert of_pictures.values["fid"] < record.values["fid"]
    write_report(run, tmp_path / "report.html", num_images=60)
    assert "16&times;32&times;3" in (tmp_path / "report.html").read_text()
    made = export_run(run, tmp_path / "wide.gan", ExportOptions(num_images=1000))
    with Sampler(made.path) as sampler:
        assert sampler.sample(seeds=range(4)).shape == (4, 16, 32, 3)
    found = evaluate(made.path, wide, num_images=60, metrics=["fid"])
    assert found.values["fid"] == pytest.approx(record.values["fid"], rel=0.05)
