"""What is compared with: data of other orders and names, prepared or not."""

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import draw_shapes
from PIL import Image

from ganinfer.errors import DataError
from gantrain.data.dataset import Dataset
from gantrain.data.prepare import prepare
from gantrain.evaluation.compare import compare
from gantrain.evaluation.evaluate import evaluate

CLASSES = ["9", "10", "x"]  # sorted as text: 10, 9, x


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A network that takes images of any size, with features (N, 8)."""
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 8, 3, stride=2), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1)]
    path = tmp_path_factory.mktemp("net") / "net.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(torch.nn.Sequential(*layers, torch.nn.Flatten()).eval()).save(str(path))
    return str(path)


def write(folder: Path, images: np.ndarray, labels: np.ndarray, names: list[str]) -> Path:
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / names[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / names[label] / f"{number:03}.png")
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("pictures"), *draw_shapes(240, seed=1), CLASSES)


def fid(target: Path, data: Path, net: str) -> float:
    return evaluate(target, data, metrics=["fid"], extractor=net).values["fid"]


def test_other_data_than_the_generators_are_refused(run: Path, tmp_path: Path) -> None:
    prepare("digits", tmp_path / "digits", resolution=16)
    with pytest.raises(DataError, match=r"10 classes.*no 3, 4.*trained on 3 classes \(0, 1, 2\)"):
        evaluate(run, tmp_path / "digits", num_images=10)


def reordered(dataset: Dataset, folder: Path, order: list[int]) -> Path:
    """The same images, prepared as classes of the same names in another order."""
    assert dataset.labels is not None
    classes = [dataset.classes[k] for k in order]
    labels = np.argsort(order)[np.array(dataset.labels)]
    np.savez(folder / "x.npz", images=np.array(dataset.images), labels=labels)
    path = prepare(str(folder / "x.npz"), folder / "data").path
    text = (path / "dataset.json").read_text()
    names = '"classes": [\n    "0",\n    "1",\n    "2"\n  ]'
    assert names in text
    (path / "dataset.json").write_text(
        text.replace(names, f'"classes": {classes}'.replace("'", '"'))
    )
    return path


@pytest.mark.slow
def test_classes_are_matched_by_name_whatever_their_order(
    shapes: Path, run: Path, tmp_path: Path
) -> None:
    other = reordered(Dataset(shapes), tmp_path, [2, 0, 1])
    same = evaluate(shapes, other, metrics=["intra_fid", "label_accuracy"]).values
    assert same["intra_fid"] < 1e-6
    assert same["label_accuracy"] > 0.99
    found, expected = (
        evaluate(run, data, metrics=["label_accuracy"], num_images=300).values
        for data in (other, shapes)
    )
    assert found["label_accuracy"] == pytest.approx(expected["label_accuracy"], abs=0.03)


@pytest.mark.slow
def test_a_classifier_of_the_training_set_is_tested_on_data_of_another_order(
    shapes: Path, run: Path, tmp_path: Path
) -> None:
    other = reordered(Dataset(shapes), tmp_path, [2, 0, 1])
    assert evaluate(run, other, metrics=["cas"], num_images=300).values["cas_of_real"] > 0.95


def test_classes_of_other_names_matter_only_to_metrics_that_use_them(
    shapes: Path, pictures: Path
) -> None:
    found = evaluate(pictures, shapes).values
    assert found["fid"] < 100
    assert "label_accuracy" not in found
    with pytest.raises(DataError, match="found images of the classes .*x; expected 0, 1, 2"):
        evaluate(pictures, shapes, metrics=["intra_fid"])


@pytest.mark.slow
def test_data_need_not_be_prepared(pictures: Path, net: str, tmp_path: Path) -> None:
    made = prepare(str(pictures), tmp_path / "data").path
    names = ["fid", "label_accuracy"]
    first, second = (evaluate(pictures, data, metrics=names) for data in (pictures, made))
    assert first.scores == second.scores
    assert first.values["fid"] < 1e-6
    assert fid(pictures, pictures, net) == pytest.approx(0, abs=1e-9)
    both = tmp_path / "both"
    images, labels = draw_shapes(120, seed=2)
    write(both / "train", images, labels, CLASSES)
    write(both / "test", images // 2, labels, CLASSES)
    assert fid(both, both, net) == pytest.approx(0, abs=1e-9)
    split = [
        evaluate(both / "test", both, metrics=["fid"], extractor=net, split=s).values["fid"]
        for s in ("train", "test")
    ]
    assert split[1] == pytest.approx(0, abs=1e-9)
    assert split[0] > 1
    np.savez(tmp_path / "x.npz", images=images, labels=labels)
    assert fid(both, tmp_path / "x.npz", net) == pytest.approx(0, abs=1e-6)


def test_sizes_may_differ_where_the_extractor_takes_any(
    pictures: Path, net: str, tmp_path: Path
) -> None:
    images, _ = draw_shapes(60, seed=3)
    for number, image in enumerate(images):
        cut = image[: 14 + number % 3]
        Image.fromarray(cut).save(tmp_path / f"{number}.png")
    assert fid(tmp_path, tmp_path, net) == pytest.approx(0, abs=1e-9)
    assert np.isfinite(fid(tmp_path, pictures, net))
    with pytest.raises(DataError, match=r"0\.png is \(14, 16, 3\) and the data \(16, 16, 3\)"):
        evaluate(tmp_path, pictures, metrics=["fid"])
    with pytest.raises(DataError, match="takes images of one size"):
        evaluate(pictures, tmp_path, metrics=["fid"])


def test_a_stray_picture_is_refused_and_taken_without_labels(
    pictures: Path, tmp_path: Path, net: str
) -> None:
    shutil.copytree(pictures, tmp_path / "stray")
    Image.new("RGB", (16, 16)).save(tmp_path / "stray/preview.png")
    for target, data in ((pictures, tmp_path / "stray"), (tmp_path / "stray", pictures)):
        with pytest.raises(DataError, match=r"preview.png has no class.* give --no-labels"):
            fid(target, data, net)
        options = {"labelled": False, "metrics": ["fid"], "extractor": net}
        assert 0 < evaluate(target, data, **options).values["fid"] < 0.1
    both = compare([pictures, tmp_path / "stray"], pictures, **options).records
    assert [record.num_images for record in both] == [240, 240]


@pytest.mark.slow
def test_grey_pictures_among_coloured_ones_are_converted(pictures: Path, tmp_path: Path) -> None:
    images, labels = draw_shapes(30, seed=1)
    grey = np.repeat(images[:, :, :, :1], 3, axis=3)
    found = []
    for mode in ("RGB", "L"):
        folder = write(tmp_path / mode, images, labels, CLASSES)
        place = folder / CLASSES[labels[7]] / "007.png"
        Image.fromarray(grey[7]).convert(mode).save(place)
        found.append(evaluate(folder, pictures, metrics=["fid", "spectral_distance"]).values)
    assert found[0] == found[1]


def test_a_broken_picture_is_named(pictures: Path, net: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "x", *draw_shapes(30, seed=1), CLASSES)
    place = folder / "x" / "002.png"
    place.write_bytes(place.read_bytes()[:60])
    with pytest.raises(DataError, match=r"x/002\.png: broken image"):
        fid(folder, pictures, net)
    with pytest.raises(DataError, match=r"x/002\.png: broken image"):
        fid(pictures, folder, net)
