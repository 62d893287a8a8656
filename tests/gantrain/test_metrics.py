from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_recipe
from scipy import linalg, stats

from ganinfer.errors import ConfigError, DataError
from ganinfer.lookup import module_names
from gantrain.config import parse_config
from gantrain.data import Dataset
from gantrain.evaluate import evaluate, open_reference, open_target
from gantrain.metrics import parzen
from gantrain.metrics._features import dataset_classifier
from gantrain.metrics._reference import Reference
from gantrain.metrics._statistics import FeatureStatistics, frechet_distance
from gantrain.prepare import prepare
from gantrain.train import train

RNG = np.random.default_rng(0)


def statistics_of(features: np.ndarray, batch: int = 100) -> FeatureStatistics:
    statistics = FeatureStatistics(features.shape[1])
    for start in range(0, len(features), batch):
        statistics.update(features[start : start + batch])
    return statistics


def test_streamed_moments_equal_numpys() -> None:
    features = RNG.normal(1e4, 3.0, (1234, 9))  # a mean that would ruin E x^2 - (E x)^2
    statistics = statistics_of(features, batch=77)
    np.testing.assert_allclose(statistics.mean, features.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(statistics.covariance, np.cov(features.T), rtol=1e-9)


def test_distance_of_known_gaussians() -> None:
    """Commuting covariances: |m|^2 + sum (sqrt a - sqrt b)^2."""
    a, b = FeatureStatistics(3), FeatureStatistics(3)
    q = linalg.qr(RNG.normal(size=(3, 3)))[0]
    for statistics, mean, variances in ((a, 0.0, [1, 4, 9]), (b, 2.0, [4, 4, 1])):
        statistics.num_images = 11
        statistics.mean = np.full(3, mean)
        statistics._scatter = 10 * q @ np.diag(variances) @ q.T
    assert frechet_distance(a, b) == pytest.approx(3 * 4 + 1 + 0 + 4, rel=1e-10)


def test_distance_agrees_with_the_matrix_root_of_scipy() -> None:
    x, y = RNG.normal(size=(500, 20)), RNG.normal(0.3, 1.4, (400, 20))
    root = linalg.sqrtm(np.cov(x.T) @ np.cov(y.T)).real
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(np.cov(x.T) + np.cov(y.T) - 2 * root)
    assert frechet_distance(statistics_of(x), statistics_of(y)) == pytest.approx(expected, rel=1e-8)


def test_distance_to_itself_is_zero_even_where_the_covariance_is_singular() -> None:
    few = statistics_of(RNG.normal(size=(5, 30)))
    assert abs(frechet_distance(few, few)) < 1e-6


def test_one_image_and_a_nan_are_refused() -> None:
    with pytest.raises(DataError, match="covariance of 1 images"):
        _ = statistics_of(np.ones((1, 3))).covariance
    with pytest.raises(DataError, match="NaN"):
        statistics_of(np.array([[1.0, np.nan]]))


@pytest.fixture(scope="module")
def reference(shapes: Path) -> Reference:
    dataset = Dataset(shapes)
    return Reference(dataset, dataset_classifier(dataset))


def test_the_classifier_knows_its_dataset(reference: Reference) -> None:
    dataset = reference.dataset
    seen = reference.extractor(np.array(dataset.images))
    assert np.mean(seen.logits.argmax(axis=1) == dataset.labels) > 0.99
    assert seen.features.dtype == np.float64


def test_the_classifier_is_trained_once(shapes: Path, tmp_path: Path) -> None:
    calls: list[int] = []
    dataset = Dataset(shapes)
    dataset_classifier(dataset, progress=lambda done, total: calls.append(done))
    assert not calls  # the session's cache has it
    first = dataset_classifier(dataset, cache=tmp_path, progress=lambda d, t: calls.append(d))
    assert calls
    second = dataset_classifier(dataset, cache=tmp_path, progress=lambda d, t: pytest.fail("again"))
    images = np.array(dataset.images[:10])
    assert np.array_equal(first(images).features, second(images).features)


def test_real_images_score_perfectly(reference: Reference) -> None:
    dataset = reference.dataset
    real = [(np.array(dataset.images), np.array(dataset.labels))]
    result = evaluate(real, reference, metrics=["fid", "label_accuracy"])
    assert result.scores["fid"] < 1e-6
    assert result.scores["label_accuracy"] > 0.99
    assert (result.num_images, result.extractor) == (300, "classifier")


def test_wrong_labels_and_noise_are_seen(reference: Reference) -> None:
    dataset = reference.dataset
    wrong = [(np.array(dataset.images), (np.array(dataset.labels) + 1) % 3)]
    assert evaluate(wrong, reference, metrics=["label_accuracy"]).scores["label_accuracy"] < 0.01
    noise = RNG.integers(0, 256, dataset.images.shape, dtype=np.uint8)
    assert evaluate([(noise, None)], reference, metrics=["fid"]).scores["fid"] > 10


def test_a_dropped_class_shows_in_fid(reference: Reference) -> None:
    dataset = reference.dataset
    kept = np.array(dataset.labels) != 2
    images = np.array(dataset.images)
    half = evaluate([(images[::2], None)], reference, metrics=["fid"]).scores["fid"]
    dropped = evaluate([(images[kept], None)], reference, metrics=["fid"]).scores["fid"]
    assert dropped > 5 * half


def test_a_run_and_its_bundle_score_the_same(run: Path, bundle: Path) -> None:
    scores = []
    for target in (run, bundle):
        opened = open_target(target, None, num_images=300)
        scores.append(
            evaluate(opened.batches, opened.reference, metrics=["fid", "label_accuracy"]).scores
        )
    assert scores[0]["fid"] == pytest.approx(scores[1]["fid"], rel=1e-3)
    assert scores[0]["label_accuracy"] == pytest.approx(scores[1]["label_accuracy"], abs=0.01)


def test_other_data_than_the_generators_are_refused(run: Path, tmp_path: Path) -> None:
    prepare("digits", tmp_path / "digits", resolution=16)
    with pytest.raises(DataError, match="10 classes.*trained on 3 classes"):
        open_target(run, tmp_path / "digits", num_images=10)


def test_mistakes_are_named(reference: Reference) -> None:
    with pytest.raises(ConfigError, match="there is no 'fit'; did you mean 'fid'"):
        evaluate([], reference, metrics=["fit"])
    with pytest.raises(DataError, match="uint8"):
        evaluate([(np.zeros((2, 8, 8, 3), np.uint8), None)], reference, metrics=["fid"])
    with pytest.raises(DataError, match="without the labels"):
        images = np.zeros((2, 16, 16, 3), np.uint8)
        evaluate([(images, None)], reference, metrics=["label_accuracy"])


def test_metrics_are_found_in_their_folder() -> None:
    assert module_names("gantrain.metrics") == [
        "classification_error",
        "fid",
        "label_accuracy",
        "modes",
        "parzen",
    ]


def test_unlabelled_data_are_classified_by_rotation(tmp_path: Path, shapes: Path) -> None:
    np.savez(tmp_path / "x.npz", images=np.array(Dataset(shapes).images))
    dataset = Dataset(prepare(str(tmp_path / "x.npz"), tmp_path / "data").path)
    reference = Reference(dataset, dataset_classifier(dataset, cache=tmp_path))
    assert reference.extractor.name == "classifier of rotations"
    with pytest.raises(DataError, match="no classes"):
        evaluate([], reference, metrics=["label_accuracy"])
    assert torch.is_grad_enabled()


def test_modes_are_the_classes_that_the_classifier_sees(reference: Reference) -> None:
    dataset = reference.dataset
    images, labels = np.array(dataset.images), np.array(dataset.labels)
    whole = evaluate([(images, labels)], reference, metrics=["modes"]).scores
    assert (whole["modes"], whole["num_modes"]) == (3, 3)
    assert whole["modes_kl"] == pytest.approx(0, abs=1e-3)
    part = evaluate([(images[labels != 1], None)], reference, metrics=["modes"]).scores
    assert part["modes"] == 2
    assert part["modes_kl"] == pytest.approx(np.log(3 / 2), abs=0.01)


def test_points_are_judged_by_their_centres(tmp_path: Path) -> None:
    dataset = Dataset(prepare("grid25", tmp_path / "grid25").path)
    reference = open_reference(dataset, torch.device("cpu"))
    points = np.array(dataset.images[:2500])
    scores = evaluate([(points, None)], reference, metrics=["fid", "modes"]).scores
    assert scores["modes"] == scores["num_modes"] == 25
    assert scores["high_quality"] == pytest.approx(1 - np.exp(-4.5), abs=0.01)  # within 3 sigma
    assert scores["fid"] < 1e-3
    assert evaluate([(points * 0, None)], reference, metrics=["modes"]).scores["modes"] == 1
    with pytest.raises(DataError, match="float32"):
        evaluate([(points.astype(np.uint8), None)], reference, metrics=["modes"])


def test_a_stacked_set_is_seen_channel_by_channel(tmp_path: Path) -> None:
    from gantrain.sources import open_source, stack

    source = stack(open_source("digits", "train"), 3000)
    assert len(source.classes) == 1000
    assert source.classes[345] == "345"
    prepare("digits", tmp_path / "stacked", stack=True)
    dataset = Dataset(tmp_path / "stacked")
    assert dataset.images.shape == (128_000, 8, 8, 3)
    assert (dataset.stacked, dataset.num_classes) == (10, 1000)
    reference = open_reference(dataset, torch.device("cpu"))
    images, labels = np.array(dataset.images[:2000]), np.array(dataset.labels[:2000])
    seen = reference.extractor(images)
    assert np.mean(seen.logits.argmax(axis=1) == labels) > 0.9
    scores = evaluate([(images, None)], reference, metrics=["fid", "modes"]).scores
    assert scores["modes"] > 800


def test_the_parzen_window_is_the_mixture_of_gaussians_that_it_says() -> None:
    rng = np.random.default_rng(0)
    centres, x = rng.random((20, 6)).astype(np.float32), rng.random((5, 6)).astype(np.float32)
    found = parzen.log_likelihoods(parzen.squared_distances(x, centres), 0.3, 6)
    for one, value in zip(x, found, strict=True):
        densities = [stats.multivariate_normal(c, 0.09 * np.eye(6)).pdf(one) for c in centres]
        assert value == pytest.approx(np.log(np.mean(densities)), rel=1e-4)


def test_parzen_prefers_images_like_those_of_the_data(reference: Reference) -> None:
    images = np.array(reference.dataset.images)
    noise = RNG.integers(0, 256, images.shape, dtype=np.uint8)
    good, bad = (
        evaluate([(batch, None)], reference, metrics=["parzen"]).scores for batch in (images, noise)
    )
    assert good["parzen_nats"] > bad["parzen_nats"] + 10 * bad["parzen_nats_standard_error"]


def test_a_semi_supervised_discriminator_is_asked_for_the_class(
    shapes: Path, run: Path, tmp_path: Path
) -> None:
    tree = tiny_recipe(shapes, total_kimg=4, sample_kimg=4)
    tree["model"]["conditional"] = False
    tree["objective"] = {"name": "semi_supervised", "num_classes": 3, "num_labels": 30}
    tree["regularizers"] = [{"name": "feature_matching"}]
    trained = train(parse_config(tree, where="x"), tmp_path / "run").run
    opened = open_target(trained, None, num_images=10)
    result = evaluate(opened.batches, opened.reference, metrics=["classification_error"])
    assert result.scores["classification_error"] < 0.3
    opened = open_target(run, None, num_images=10)
    with pytest.raises(ConfigError, match="knows no classes"):
        evaluate(opened.batches, opened.reference, metrics=["classification_error"])
