import json
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from conftest import tiny_recipe

from ganinfer.errors import ConfigError, DataError
from ganinfer.scheduler.opening import Opening
from gantrain.data.dataset import Dataset
from gantrain.data.prepare import prepare
from gantrain.evaluation.evaluate import evaluate, target_moments
from gantrain.evaluation.references import open_reference
from gantrain.evaluation.scores import score_images
from gantrain.extractors._base import see
from gantrain.extractors.classifier import dataset_classifier
from gantrain.game.config import parse_config
from gantrain.metrics._moments import frechet_distance
from gantrain.metrics._reference import Reference, load_moments, save_moments
from gantrain.training.train import train

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def reference(shapes: Path) -> Reference:
    return open_reference(shapes)


def whole(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    assert dataset.labels is not None
    return np.array(dataset.images), np.array(dataset.labels)


def test_the_classifier_knows_its_dataset(reference: Reference) -> None:
    images, labels = whole(reference.dataset)
    seen = see(reference.extractor, images)
    assert seen.logits is not None
    assert np.mean(seen.logits.argmax(1).numpy() == labels) > 0.99
    assert seen.features.shape == (300, 64)


@pytest.mark.slow
def test_the_classifier_is_trained_once(shapes: Path, tmp_path: Path) -> None:
    calls: list[int] = []
    dataset = Dataset(shapes)
    dataset_classifier(dataset, progress=lambda done, total: calls.append(done))
    assert not calls  # the session's cache has it
    first = dataset_classifier(dataset, cache=tmp_path, progress=lambda d, t: calls.append(d))
    assert calls
    second = dataset_classifier(dataset, cache=tmp_path, progress=lambda d, t: pytest.fail("again"))
    images = np.array(dataset.images[:10])
    assert torch.equal(see(first, images).features, see(second, images).features)


def test_real_images_score_perfectly(reference: Reference) -> None:
    result = score_images([whole(reference.dataset)], reference, metrics=["fid", "label_accuracy"])
    assert result.values["fid"] < 1e-6
    assert result.values["label_accuracy"] > 0.99
    assert (result.num_images, result.extractor, result.resizer) == (300, "classifier", "none")
    assert result.dataset_sha256 == reference.dataset.sha256


def test_wrong_labels_and_noise_are_seen(reference: Reference) -> None:
    images, labels = whole(reference.dataset)
    wrong = score_images([(images, (labels + 1) % 3)], reference, metrics=["label_accuracy"])
    assert wrong.values["label_accuracy"] < 0.01
    noise = RNG.integers(0, 256, images.shape, dtype=np.uint8)
    assert score_images([(noise, None)], reference, metrics=["fid"]).values["fid"] > 10


def test_a_dropped_class_shows_in_fid(reference: Reference) -> None:
    images, labels = whole(reference.dataset)
    half = score_images([(images[::2], None)], reference, metrics=["fid"]).values["fid"]
    dropped = score_images([(images[labels != 2], None)], reference, metrics=["fid"]).values["fid"]
    assert dropped > 5 * half


def test_a_metric_without_features_opens_no_extractor(shapes: Path) -> None:
    dataset = Dataset(shapes)
    blind = Reference(dataset, lambda: pytest.fail("opened"))
    result = score_images([whole(dataset)], blind, metrics=["spectral_distance", "parzen"])
    assert result.extractor == "none"
    assert result.values["spectral_distance"] == pytest.approx(0, abs=1e-9)


def test_a_run_and_its_bundle_score_the_same(run: Path, bundle: Path) -> None:
    names = ["fid", "label_accuracy"]
    found = [evaluate(target, metrics=names, num_images=300) for target in (run, bundle)]
    assert found[0].values["fid"] == pytest.approx(found[1].values["fid"], rel=1e-3)
    assert found[0].values["label_accuracy"] == pytest.approx(
        found[1].values["label_accuracy"], abs=0.01
    )
    assert found[0].target == str(run)
    assert found[0].drawn_by is None
    assert found[0].versions["torch"] == torch.__version__


def test_a_bundle_is_measured_in_the_precision_that_is_asked_for(run: Path, bundle: Path) -> None:
    half = Opening(backend="onnxruntime", precision="fp16")
    asked = {"metrics": ["fid"], "num_images": 300}
    found = [evaluate(bundle, **asked, opening=opening) for opening in (Opening(), half)]  # type: ignore[arg-type]
    assert found[1].drawn_by == "onnxruntime on cpu in fp16"
    assert found[0].values["fid"] != found[1].values["fid"]
    assert found[0].values["fid"] == pytest.approx(found[1].values["fid"], rel=0.01)
    with pytest.raises(ConfigError, match=f"{run}: backend, precision and so on are for bundles"):
        evaluate(run, **asked, opening=half)  # type: ignore[arg-type]


def test_a_second_evaluation_goes_on_from_the_first_and_agrees_to_the_last_digit(
    run: Path, tmp_path: Path
) -> None:
    asked = {"metrics": ["fid", "kid"], "num_images": 700, "cache": tmp_path}
    first = evaluate(run, **asked)  # type: ignore[arg-type]
    generated: list[tuple[str, int]] = []
    for file in sorted(tmp_path.rglob("000001-*.safetensors")):
        file.unlink()  # as if it had been killed after its first chunk
    second = evaluate(
        run,
        **asked,
        progress=lambda name, done, total: generated.append((name, done)),  # type: ignore[arg-type]
    )
    assert second.scores == first.scores
    assert ("generating", 700) in generated


def test_images_of_a_folder_a_zip_or_an_npz_are_measured(shapes: Path, tmp_path: Path) -> None:
    from PIL import Image

    images, labels = whole(Dataset(shapes))
    np.savez(tmp_path / "x.npz", images=images, labels=labels)
    for n, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = tmp_path / "folder" / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{n}.png")
    for place in (tmp_path / "x.npz", tmp_path / "folder", shapes):
        found = evaluate(place, shapes, metrics=["fid", "label_accuracy"])
        assert found.values["fid"] < 1e-6, place
        assert found.values["label_accuracy"] > 0.99
        assert found.num_images == 300
    few = evaluate(tmp_path / "x.npz", shapes, metrics=["modes"], num_images=50)
    assert (few.num_images, few.values["modes"]) == (50, 3)
    with pytest.raises(DataError, match="give --data"):
        evaluate(tmp_path / "x.npz")
    with pytest.raises(DataError, match="takes no truncation"):
        evaluate(tmp_path / "x.npz", shapes, truncation=0.5)
    Image.fromarray(images[0][:8]).save(tmp_path / "folder" / "0" / "small.png")
    with pytest.raises(DataError, match="small.png is .*the data .*one size"):
        evaluate(tmp_path / "folder", shapes, metrics=["fid"])


def test_truncation_moves_quality_against_diversity(run: Path) -> None:
    names = ["fid", "precision_recall"]
    low, high = (
        evaluate(run, metrics=names, num_images=300, truncation=point) for point in (0.1, 2)
    )
    assert (low.truncation, high.truncation) == (0.1, 2)
    assert low.values["recall"] < high.values["recall"]


def test_mistakes_are_named(reference: Reference, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no 'fit'; did you mean 'fid'"):
        score_images([], reference, metrics=["fit"])
    with pytest.raises(DataError, match="uint8"):
        score_images([(np.zeros((2, 8, 8, 3), np.uint8), None)], reference, metrics=["fid"])
    with pytest.raises(DataError, match="float32"):
        images = np.zeros((2, 16, 16, 3), np.float32)
        score_images([(images, None)], reference, metrics=["fid"])
    with pytest.raises(DataError, match="without the labels"):
        images = np.zeros((2, 16, 16, 3), np.uint8)
        score_images([(images, None)], reference, metrics=["label_accuracy"])
    with pytest.raises(DataError, match="covariance of 1 images"):
        score_images([(np.zeros((1, 16, 16, 3), np.uint8), None)], reference, metrics=["fid"])
    with pytest.raises(DataError, match="nowhere: nothing there"):
        evaluate(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="there is no 'vgg'"):
        evaluate(reference.dataset.path, reference.dataset.path, extractor="vgg")
    with pytest.raises(ConfigError, match="only --extractor inception"):
        evaluate(reference.dataset.path, reference.dataset.path, resizer="tf")


@pytest.mark.slow
def test_unlabelled_data_are_classified_by_rotation(tmp_path: Path, shapes: Path) -> None:
    np.savez(tmp_path / "x.npz", images=np.array(Dataset(shapes).images))
    reference = open_reference(prepare(str(tmp_path / "x.npz"), tmp_path / "data").path)
    assert reference.extractor.name == "classifier of rotations"
    with pytest.raises(DataError, match="does not see the dataset's classes"):
        score_images([whole(Dataset(shapes))], reference, metrics=["label_accuracy"])
    assert torch.is_grad_enabled()


def test_modes_are_the_classes_that_the_classifier_sees(reference: Reference) -> None:
    images, labels = whole(reference.dataset)
    found = score_images([(images, labels)], reference, metrics=["modes"]).values
    assert (found["modes"], found["num_modes"]) == (3, 3)
    assert found["modes_kl"] == pytest.approx(0, abs=1e-3)
    part = score_images([(images[labels != 1], None)], reference, metrics=["modes"]).values
    assert part["modes"] == 2
    assert part["modes_kl"] == pytest.approx(np.log(3 / 2), abs=0.01)


def test_points_are_judged_by_their_centres(tmp_path: Path) -> None:
    reference = open_reference(prepare("grid25", tmp_path / "grid25").path)
    points = np.array(reference.dataset.images[:2500])
    found = score_images([(points, None)], reference, metrics=["fid", "modes"]).values
    assert found["modes"] == found["num_modes"] == 25
    assert found["high_quality"] == pytest.approx(1 - np.exp(-4.5), abs=0.01)  # within 3 sigma
    assert found["fid"] < 1e-3
    assert score_images([(points * 0, None)], reference, metrics=["modes"]).values["modes"] == 1
    with pytest.raises(DataError, match="float32"):
        score_images([(points.astype(np.uint8), None)], reference, metrics=["modes"])
    with pytest.raises(DataError, match="points"):
        score_images([(points, None)], reference, metrics=["spectral_distance"])


@pytest.mark.slow
def test_a_stacked_set_is_seen_channel_by_channel(tmp_path: Path) -> None:
    from gantrain.data.sources import open_source
    from gantrain.data.stacking import stack

    source = stack(open_source("digits", "train"), 3000)
    assert len(source.classes) == 1000
    assert source.classes[345] == "345"
    prepare("digits", tmp_path / "stacked", stack=True)
    reference = open_reference(tmp_path / "stacked")
    dataset = reference.dataset
    assert dataset.images.shape == (128_000, 8, 8, 3)
    assert (dataset.stacked, dataset.num_classes) == (10, 1000)
    images, labels = np.array(dataset.images[:2000]), np.array(dataset.labels[:2000])
    seen = see(reference.extractor, images)
    assert seen.logits is not None
    assert np.mean(seen.logits.argmax(1).numpy() == labels) > 0.9
    found = score_images([(images, None)], reference, metrics=["modes"]).values
    assert found["modes"] > 800


def test_parzen_prefers_images_like_those_of_the_data(reference: Reference) -> None:
    images, _ = whole(reference.dataset)
    noise = RNG.integers(0, 256, images.shape, dtype=np.uint8)
    good, bad = (
        score_images([(batch, None)], reference, metrics=["parzen"]).scores["parzen_nats"]
        for batch in (images, noise)
    )
    assert bad.standard_error is not None
    assert good.value > bad.value + 10 * bad.standard_error


@pytest.mark.slow
def test_a_classifier_learns_from_good_images_and_not_from_wrong_labels(
    reference: Reference,
) -> None:
    images, labels = whole(reference.dataset)
    good = score_images([(images, labels)], reference, metrics=["cas"]).values
    assert min(good.values()) > 0.95
    wrong = score_images([(images, (labels + 1) % 3)], reference, metrics=["cas"]).values
    assert wrong["cas"] < 0.05
    assert wrong["cas_reverse"] < 0.05
    with pytest.raises(DataError, match="by class"):
        score_images([(images, None)], reference, metrics=["cas"])


def test_path_length_is_measured_of_a_run_and_not_of_a_bundle(run: Path, bundle: Path) -> None:
    found = evaluate(run, metrics=["ppl"], num_images=2)
    assert found.scores["ppl_features"].value > 0
    with pytest.raises(DataError, match="needs a run"):
        evaluate(bundle, metrics=["ppl"], num_images=2)


def test_a_semi_supervised_discriminator_is_asked_for_the_class(
    shapes: Path, run: Path, tmp_path: Path
) -> None:
    tree = tiny_recipe(shapes, total_kimg=4, sample_kimg=4)
    tree["model"]["conditional"] = False
    tree["objective"] = {"name": "semi_supervised", "num_classes": 3, "num_labels": 30}
    tree["regularizers"] = [{"name": "feature_matching"}]
    trained = train(parse_config(tree, where="x"), tmp_path / "run").run
    found = evaluate(trained, metrics=["classification_error"], num_images=2)
    assert found.values["classification_error"] < 0.3
    with pytest.raises(ConfigError, match="knows no classes"):
        evaluate(run, metrics=["classification_error"], num_images=2)


def test_moments_are_saved_and_read_as_pytorch_fid_does(
    reference: Reference, tmp_path: Path
) -> None:
    moments = reference.moments
    save_moments(moments, tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz") as archive:  # as pytorch-fid reads them
        mu, sigma = archive["mu"][:], archive["sigma"][:]
    assert (mu.shape, sigma.shape, mu.dtype) == ((64,), (64, 64), np.float64)
    np.savez(tmp_path / "theirs.npz", mu=mu, sigma=sigma)  # and as it writes them
    for name in ("x.npz", "theirs.npz"):
        assert frechet_distance(load_moments(tmp_path / name), moments) < 1e-6
    np.savez(tmp_path / "bad.npz", mu=mu, sigma=sigma[:3])
    for name, text in (("bad.npz", "expected finite"), ("none.npz", "no npz of moments")):
        with pytest.raises(DataError, match=text):
            load_moments(tmp_path / name)


def test_a_network_in_a_file_sees_images(shapes: Path, run: Path, tmp_path: Path) -> None:
    """The same network as ONNX and as TorchScript, against moments and against a dataset."""
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(3, 8, 3, stride=4)
    network = torch.nn.Sequential(conv, torch.nn.ReLU(), torch.nn.Flatten()).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(network).save(str(tmp_path / "net.pt"))
    graph = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        net (float[n, 3, 16, 16] x) => (float[n, f] y) {
            a = Conv<strides = [4, 4]>(x, w, b)
            c = Relu(a)
            y = Flatten(c)
        }"""
    )
    for name, value in (("w", conv.weight), ("b", conv.bias)):
        assert value is not None
        graph.graph.initializer.append(onnx.numpy_helper.from_array(value.detach().numpy(), name))
    onnx.save(graph, tmp_path / "net.onnx")
    found = [
        evaluate(run, metrics=["fid"], num_images=300, extractor=str(tmp_path / name))
        for name in ("net.onnx", "net.pt")
    ]
    assert found[0].extractor == "net.onnx"
    assert found[0].values["fid"] == pytest.approx(found[1].values["fid"], rel=1e-4)
    moments = target_moments(shapes, num_images=300, extractor=str(tmp_path / "net.pt"))
    save_moments(moments, tmp_path / "real.npz")
    against = evaluate(
        run, tmp_path / "real.npz", num_images=300, extractor=str(tmp_path / "net.pt")
    )
    assert against.values["fid"] == pytest.approx(found[1].values["fid"], rel=1e-9)
    assert against.dataset == str(tmp_path / "real.npz")
    with pytest.raises(DataError, match="needs the real images"):
        evaluate(
            run,
            tmp_path / "real.npz",
            metrics=["kid"],
            num_images=10,
            extractor=str(tmp_path / "net.pt"),
        )
    with pytest.raises(DataError, match="say which with --extractor"):
        evaluate(run, tmp_path / "real.npz", num_images=10)
    with pytest.raises(DataError, match="gives no logits"):
        evaluate(
            run, metrics=["inception_score"], num_images=10, extractor=str(tmp_path / "net.pt")
        )
    (tmp_path / "broken.onnx").write_bytes(b"x")
    (tmp_path / "broken.pt").write_bytes(b"x")
    for name in ("broken.onnx", "broken.pt", "none.onnx"):
        with pytest.raises(DataError, match=name):
            evaluate(run, metrics=["fid"], num_images=10, extractor=str(tmp_path / name))


def test_a_record_is_json(run: Path) -> None:
    from dataclasses import asdict

    record = evaluate(run, metrics=["fid"], num_images=50)
    tree = json.loads(json.dumps(asdict(record)))
    assert tree["scores"]["fid"]["value"] == record.values["fid"]
    assert "biased upwards" in tree["scores"]["fid"]["note"]
    assert tree["num_images"] == 50
