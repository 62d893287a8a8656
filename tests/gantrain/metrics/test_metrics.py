"""Every score against a closed form, a brute-force version, or what it must see."""

import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.spatial.distance import cdist

from ganinfer.errors import DataError
from ganinfer.lookup import module_names
from gantrain.metrics import (
    alpha_precision,
    am_score,
    birthday_paradox,
    data_copying,
    density_coverage,
    fid,
    fid_infinity,
    inception_score,
    inception_score_infinity,
    intra_fid,
    kid,
    label_accuracy,
    lid,
    mifid,
    mmd,
    mode_score,
    modified_inception_score,
    nearest_neighbour_test,
    parzen,
    ppl,
    precision_recall,
    sfid,
    spectral_distance,
)
from gantrain.metrics._generated import Generated
from gantrain.metrics._measured import Measured
from gantrain.metrics._moments import Moments, frechet_distance
from gantrain.metrics._neighbours import nearest, nearest_of_all
from gantrain.metrics._reference import Reference

CPU = torch.device("cpu")


def side(labels: np.ndarray | None = None, **columns: np.ndarray) -> Measured:
    """Measured images, in two chunks."""
    columns = {"number": np.arange(len(next(iter(columns.values()))))} | columns
    half = len(columns["number"]) // 2
    chunks = [{k: v[s] for k, v in columns.items()} for s in (slice(half), slice(half, None))]
    return Measured(chunks, labels, CPU)


def reference(real: Measured, training: Measured | None = None) -> Reference:
    made = Reference(None, lambda: None)  # type: ignore[arg-type, return-value]
    made.real, made.training = real, training or real
    return made


def one_hot(classes: np.ndarray, num_classes: int) -> np.ndarray:
    return np.where(np.eye(num_classes)[classes] > 0, 0.0, -1000.0).astype(np.float32)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


# Scores of p(y|x).


def test_inception_score_of_sure_and_even_predictions_is_the_number_of_classes() -> None:
    even = side(logits=one_hot(np.arange(1000) % 7, 7))
    assert inception_score.scores(reference(even), even)["inception_score"].value == (
        pytest.approx(7, rel=1e-3)  # its splits of 100 are not quite even
    )
    exact = inception_score.inception_score(np.eye(7)[np.arange(700) % 7])
    assert exact == pytest.approx(7, rel=1e-12)
    one_class = side(logits=one_hot(np.zeros(100, int), 7))
    assert inception_score.scores(reference(even), one_class)[
        "inception_score"
    ].value == pytest.approx(1)
    unsure = side(logits=np.zeros((100, 7), np.float32))
    assert inception_score.scores(reference(even), unsure)[
        "inception_score"
    ].value == pytest.approx(1)


def test_modified_inception_score_is_the_mean_over_all_pairs(rng: np.random.Generator) -> None:
    logits = rng.normal(size=(12, 5)).astype(np.float32)
    p = np.exp(logits.astype(float))
    p /= p.sum(1, keepdims=True)
    pairs = [stats.entropy(a, b) for a, b in itertools.product(p, p)]
    found = modified_inception_score.modified_inception_score(np.log(p))
    assert found == pytest.approx(np.exp(np.mean(pairs)), rel=1e-9)
    labels = np.arange(12) % 2
    score = modified_inception_score.scores(
        reference(side(logits=logits)), side(labels, logits=logits)
    )["modified_inception_score"]
    of_each = [modified_inception_score.modified_inception_score(np.log(p[k::2])) for k in (0, 1)]
    assert score.value == pytest.approx(np.mean(of_each), rel=1e-6)


def test_mode_and_am_scores_notice_shares_that_differ_from_the_datas() -> None:
    real = side(
        logits=one_hot(np.repeat([0, 1], [900, 100])[np.random.default_rng(0).permutation(1000)], 2)
    )
    same = mode_score.scores(reference(real), real)["mode_score"].value
    flat = side(logits=one_hot(np.arange(1000) % 2, 2))
    p, q = np.array([0.9, 0.1]), np.array([0.5, 0.5])
    # All sure: E KL(p(y|x) || p*) - KL(p(y) || p*) is the entropy of p(y).
    assert same == pytest.approx(np.exp(stats.entropy(p)), rel=0.02)
    found = mode_score.scores(reference(real), flat)["mode_score"].value
    assert found == pytest.approx(2.0, rel=1e-3)
    assert am_score.scores(reference(flat), flat)["am_score"].value == pytest.approx(0, abs=1e-9)
    found = am_score.scores(reference(real), flat)["am_score"].value
    assert found == pytest.approx(stats.entropy(p, q), rel=1e-6)


def test_extrapolation_takes_the_bias_away(rng: np.random.Generator) -> None:
    real = Moments.given(torch.zeros(20), torch.eye(20), 10**6)
    fake = side(features=rng.normal(size=(4000, 20)).astype(np.float32))
    given = reference(fake)
    given.moments = real
    biased = fid.scores(given, fake)["fid"].value
    score = fid_infinity.scores(given, fake)["fid_infinity"]
    assert score.standard_error is not None
    assert abs(score.value) < biased / 2
    assert abs(score.value) < 5 * score.standard_error + 0.01

    sure = side(logits=one_hot(rng.integers(50, size=2000), 50))  # of infinitely many: IS = 50
    whole = inception_score.inception_score(np.exp(sure.logits.astype(float)))
    found = inception_score_infinity.scores(given, sure)["inception_score_infinity"].value
    assert abs(found - 50) < abs(whole - 50) / 3


def test_label_accuracy_names_the_worst_class() -> None:
    asked = np.arange(300) % 3
    seen = np.where((asked == 2) & (np.arange(300) % 2 == 0), 0, asked)
    known = SimpleNamespace(
        extractor=SimpleNamespace(sees_classes=True),
        classes=["circle", "square", "cross"],
    )
    found = label_accuracy.scores(known, side(asked, logits=one_hot(seen, 3)))  # type: ignore[arg-type]
    assert found["label_accuracy"].value == pytest.approx(5 / 6)
    assert found["label_accuracy"].standard_error == pytest.approx((5 / 36 / 300) ** 0.5)
    assert found["label_accuracy_worst_class"].value == pytest.approx(0.5)
    assert found["label_accuracy_worst_class"].note == "class cross"
    with pytest.raises(DataError, match="without the labels"):
        label_accuracy.scores(known, side(logits=one_hot(seen, 3)))  # type: ignore[arg-type]


# Distances between distributions of features.


def test_few_images_give_a_finite_fid_and_a_warning(rng: np.random.Generator) -> None:
    real = side(features=rng.normal(size=(100, 256)).astype(np.float32))
    fake = side(features=rng.normal(size=(60, 256)).astype(np.float32))
    score = fid.scores(reference(real), fake)["fid"]
    assert np.isfinite(score.value)
    assert score.note is not None
    assert "60 images for 256 features" in score.note
    assert "biased upwards" in score.note
    assert score.standard_error is None


def test_sfid_and_intra_fid_are_fids_of_other_sets(rng: np.random.Generator) -> None:
    a, b = rng.normal(size=(500, 6)), rng.normal(0.5, 1.1, (400, 6))
    spatial = sfid.scores(
        reference(side(spatial=a.astype(np.float32))), side(spatial=b.astype(np.float32))
    )["sfid"].value
    whole = frechet_distance(Moments.of([a]), Moments.of([b]))
    assert spatial == pytest.approx(whole, rel=1e-4)

    real = side(np.arange(500) % 2, features=a.astype(np.float32))
    fake = side(np.arange(400) % 2, features=b.astype(np.float32))
    known = reference(real)
    known.classes = ["even", "odd"]
    found = intra_fid.scores(known, fake)
    each = [frechet_distance(Moments.of([a[k::2]]), Moments.of([b[k::2]])) for k in (0, 1)]
    assert found["intra_fid"].value == pytest.approx(np.mean(each), rel=1e-4)
    assert found["intra_fid_worst_class"].value == pytest.approx(max(each), rel=1e-4)
    with pytest.raises(DataError, match="classes"):
        intra_fid.scores(reference(side(features=a)), fake)


def test_a_class_of_one_image_is_left_out_of_intra_fid_and_named(rng: np.random.Generator) -> None:
    real, made = (rng.normal(size=(count, 4)).astype(np.float32) for count in (400, 301))
    known = reference(side(np.arange(400) % 2, features=real))
    known.classes = ["common", "rare"]
    found = intra_fid.scores(known, side(np.arange(301) // 300, features=made))["intra_fid"]
    expected = frechet_distance(Moments.of([real[::2]]), Moments.of([made[:300]]))
    assert found.value == pytest.approx(expected, rel=1e-4)
    assert found.note is not None
    assert "left out, with fewer than two images of a side: rare" in found.note


def test_kid_is_the_unbiased_mmd_of_its_kernel(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(40, 8)), rng.normal(0.3, 1, (40, 8))
    xx, yy, xy = ((a @ b.T / 8 + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    expected = (
        (xx.sum() - np.trace(xx)) / (40 * 39)
        + (yy.sum() - np.trace(yy)) / (40 * 39)
        - 2 * xy.mean()
    )
    from gantrain.metrics._subsets import unbiased_mmd

    found, *_ = unbiased_mmd(kid.polynomial, torch.from_numpy(x), torch.from_numpy(y))
    assert found == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_the_error_of_a_kid_of_few_images_is_its_spread(
    shift: float, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gantrain.metrics._subsets.NUM_SUBSETS", 5)
    found = [
        kid.scores(
            reference(side(features=rng.normal(size=(60, 16)).astype(np.float32))),
            side(features=rng.normal(shift, 1, (60, 16)).astype(np.float32)),
        )["kid"]
        for _ in range(100)
    ]
    told = np.mean([score.standard_error for score in found])
    assert told == pytest.approx(np.std([score.value for score in found]), rel=0.3)
    assert found[0].note is not None
    assert "60 images: its subsets are of 1,000" in found[0].note
    with pytest.raises(DataError, match="takes 4 or more"):
        one = side(features=np.zeros((1, 16), np.float32))
        kid.scores(reference(one), one)


def test_kid_and_mmd_are_zero_between_equal_distributions_and_not_else(
    rng: np.random.Generator,
) -> None:
    real = side(features=rng.normal(size=(3000, 16)).astype(np.float32))
    same = side(features=rng.normal(size=(3000, 16)).astype(np.float32))
    shifted = side(features=rng.normal(0.3, 1, (3000, 16)).astype(np.float32))
    for name, module in (("kid", kid), ("mmd", mmd)):
        equal = module.scores(reference(real), same)[name]
        other = module.scores(reference(real), shifted)[name]
        assert abs(equal.value) < 4 * equal.standard_error, name
        assert other.value > 10 * other.standard_error, name


def test_mmd_of_two_normals_is_the_closed_form(rng: np.random.Generator) -> None:
    """E exp(-|d|^2 / w), d ~ N(m, 2 I): (w / (w + 4))^(F/2) exp(-|m|^2 / (w + 4))."""
    real = side(features=rng.normal(size=(4000, 2)).astype(np.float32))
    fake = side(features=rng.normal([1, 0], 1, (4000, 2)).astype(np.float32))
    width = float(np.median(cdist(real.features, real.features, "sqeuclidean")))
    expected = 2 * width / (width + 4) * (1 - np.exp(-1 / (width + 4)))
    score = mmd.scores(reference(real), fake)["mmd"]
    assert score.value == pytest.approx(expected, abs=4 * score.standard_error, rel=0.05)


# What compares every image with every other.


@pytest.fixture
def clouds(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    real = rng.normal(size=(2000, 12))
    return real, np.concatenate([real[:300] * 0.7, rng.normal(0.4, 0.8, (1700, 12))])


def test_precision_and_recall_are_those_of_brute_force(
    clouds: tuple[np.ndarray, np.ndarray],
) -> None:
    real, fake = clouds
    radii_real, radii_fake = (np.sort(cdist(x, x), axis=1)[:, 3] for x in clouds)
    between = cdist(real, fake)
    precise = (between <= radii_real[:, None]).any(axis=0)
    recalled = (between <= radii_fake[None]).any(axis=1)
    found = precision_recall.precision_recall(*map(torch.from_numpy, clouds))
    assert np.array_equal(found[0], precise)
    assert np.array_equal(found[1], recalled)
    sides = (side(features=x.astype(np.float32)) for x in clouds)
    scores = precision_recall.scores(reference(next(sides)), next(sides))
    assert scores["precision"].value == pytest.approx(precise.mean(), abs=2e-3)


def test_density_and_coverage_are_those_of_brute_force(
    clouds: tuple[np.ndarray, np.ndarray],
) -> None:
    real, fake = clouds
    radii = np.sort(cdist(real, real), axis=1)[:, 5]
    inside = cdist(real, fake) < radii[:, None]
    balls, covered = density_coverage.density_coverage(*map(torch.from_numpy, clouds))
    assert np.array_equal(balls, inside.sum(axis=0))
    assert np.array_equal(covered, inside.any(axis=1))


def test_neighbours_found_chunk_by_chunk_are_the_neighbours(
    clouds: tuple[np.ndarray, np.ndarray],
) -> None:
    real, fake = (torch.from_numpy(x.astype(np.float32)).double() for x in clouds)
    values, indices = nearest(fake, real, 4)
    streamed = nearest_of_all(fake, side(features=clouds[0].astype(np.float32)), 4)
    assert torch.equal(indices, streamed[1])
    torch.testing.assert_close(values, streamed[0])


def test_alpha_precision_beta_recall_and_authenticity_of_brute_force(
    clouds: tuple[np.ndarray, np.ndarray],
) -> None:
    real, fake = (x.astype(np.float32)[::4] for x in clouds)
    levels = np.linspace(0, 1, 30)
    to_real = (
        np.linalg.norm(real - real.mean(0), axis=1),
        np.linalg.norm(fake - real.mean(0), axis=1),
    )
    curve = [(to_real[1] <= np.quantile(to_real[0], a, method="higher")).mean() for a in levels]
    expected = 1 - 2 * np.abs(np.array(curve) - levels).mean()
    found = alpha_precision.scores(reference(side(features=real)), side(features=fake))
    assert found["alpha_precision"].value == pytest.approx(expected, abs=0.01)

    between, within = cdist(fake, real), cdist(real, real)
    np.fill_diagonal(within, np.inf)
    closest = between.argmin(axis=1)
    authentic = between.min(axis=1) > within.min(axis=1)[closest]
    assert found["authenticity"].value == pytest.approx(authentic.mean(), abs=1e-6)

    spread = np.linalg.norm(fake - fake.mean(0), axis=1)
    covered = between.min(axis=0) <= np.sort(within, axis=1)[:, 4]
    partner = spread[between.argmin(axis=0)]
    curve = [
        (covered & (partner <= np.quantile(spread, b, method="higher"))).mean() for b in levels
    ]
    expected = 1 - 2 * np.abs(np.array(curve) - levels).mean()
    assert found["beta_recall"].value == pytest.approx(expected, abs=0.01)


def test_alpha_precision_of_equal_distributions_is_near_one(rng: np.random.Generator) -> None:
    real, fake = (side(features=rng.normal(size=(2000, 8)).astype(np.float32)) for _ in range(2))
    found = alpha_precision.scores(reference(real), fake)
    assert found["alpha_precision"].value > 0.96
    assert found["beta_recall"].value > 0.8
    copies = alpha_precision.scores(reference(real), real)
    assert copies["authenticity"].value == 0
    assert found["authenticity"].value > 0.3


def test_the_1nn_test_tells_apart_what_differs_and_notices_copies(
    rng: np.random.Generator,
) -> None:
    real = rng.normal(size=(1000, 8)).astype(np.float32)
    for fake, low, high in (
        (rng.normal(size=(1000, 8)), 0.45, 0.55),
        (rng.normal(5, 1, (1000, 8)), 0.999, 1.0),
        (real + 1e-4, 0.0, 0.01),
    ):
        found = nearest_neighbour_test.scores(
            reference(side(features=real)), side(features=fake.astype(np.float32))
        )
        assert low <= found["nn_accuracy"].value <= high
        assert low <= found["nn_accuracy_fake"].value <= high


def test_the_birthday_paradox_counts_the_images_of_a_small_support(
    rng: np.random.Generator,
) -> None:
    real = side(features=rng.normal(size=(2000, 8)).astype(np.float32))
    support = rng.normal(size=(250, 8))
    fake = support[rng.integers(250, size=2000)].astype(np.float32)
    found = birthday_paradox.scores(reference(real), side(features=fake))
    assert found["support_size"].value == pytest.approx(250, rel=0.1)
    assert found["support_size_real"].value > 100_000
    none = birthday_paradox.support_size(torch.eye(5, dtype=torch.float64), 1e-9)
    assert none.value == 10
    assert none.note is not None


def test_local_dimension_of_a_plane_is_two_wherever_it_lies(rng: np.random.Generator) -> None:
    plane = rng.uniform(-1, 1, (8000, 2)) @ rng.normal(size=(2, 30))
    real, fake = (side(features=plane[i::2].astype(np.float32)) for i in (0, 1))
    found = lid.scores(reference(real), fake)
    assert found["cross_lid"].value == pytest.approx(2, rel=0.15)
    assert found["lid_real"].value == pytest.approx(2, rel=0.15)
    far = side(features=plane[1::2].astype(np.float32) + 3)
    assert lid.scores(reference(real), far)["cross_lid"].value > 4


def test_mifid_punishes_copies(rng: np.random.Generator) -> None:
    real = side(features=rng.normal(size=(1000, 16)).astype(np.float32))
    other = side(features=rng.normal(size=(500, 16)).astype(np.float32))
    copies = side(features=real.features[:500] * 1.001)
    plain = mifid.scores(reference(real), other)
    assert plain["mifid"].value == fid.scores(reference(real), other)["fid"].value
    punished = mifid.scores(reference(real), copies)
    assert punished["memorisation_distance"].value < 1e-5
    assert punished["mifid"].value > 1000 * fid.scores(reference(real), copies)["fid"].value


def test_data_copying_is_seen_only_where_there_is_some(rng: np.random.Generator) -> None:
    train, test, fresh = (rng.normal(size=(1500, 6)).astype(np.float32) for _ in range(3))
    given = reference(side(features=test), side(features=train))
    given.trained_on = SimpleNamespace()  # type: ignore[assignment]
    copies = train[:1000] + 0.01 * rng.normal(size=(1000, 6)).astype(np.float32)
    worse = rng.normal(0, 2, (1000, 6)).astype(np.float32)
    found = [
        data_copying.scores(given, side(features=x))["data_copying"].value
        for x in (copies, fresh, worse)
    ]
    assert found[0] < -8
    assert abs(found[1]) < 2
    assert found[2] > 5
    with pytest.raises(DataError, match="held-out"):
        data_copying.scores(reference(side(features=test)), side(features=fresh))


# Pixels.


def test_spectral_distance_of_a_dimmed_set_is_how_much_it_was_dimmed(
    rng: np.random.Generator,
) -> None:
    real = rng.integers(0, 128, (200, 16, 16, 1)) * 2
    given = reference(side(images=real.astype(np.uint8)))
    given._dataset = SimpleNamespace(points=None)  # type: ignore[assignment]
    half = side(images=(real // 2).astype(np.uint8))
    found = spectral_distance.scores(given, half)["spectral_distance"].value
    assert found == pytest.approx(20 * np.log10(2), rel=1e-6)
    assert spectral_distance.scores(given, given.real)["spectral_distance"].value == 0
    smooth = (real[:, ::2, ::2].repeat(2, axis=1).repeat(2, axis=2)).astype(np.uint8)
    assert spectral_distance.scores(given, side(images=smooth))["spectral_distance"].value > 3


def test_a_ring_of_the_spectrum_holds_its_frequency() -> None:
    across = np.arange(16)
    wave = 127 + 100 * np.cos(2 * np.pi * 3 * across / 16)
    images = np.broadcast_to(wave[None, None, :, None], (1, 16, 16, 1)).astype(np.uint8)
    found = spectral_distance.spectra(images)
    assert found.shape == (1, 8)
    assert found[0].argmax() == 2  # rings 1, 2, 3, ...


def test_the_parzen_window_is_the_mixture_of_gaussians_that_it_says() -> None:
    rng = np.random.default_rng(0)
    centres, x = rng.random((20, 6)).astype(np.float32), rng.random((5, 6)).astype(np.float32)
    found = parzen.log_likelihoods(parzen.squared_distances(x, centres), 0.3, 6)
    for one, value in zip(x, found, strict=True):
        densities = [stats.multivariate_normal(c, 0.09 * np.eye(6)).pdf(one) for c in centres]
        assert value == pytest.approx(np.log(np.mean(densities)), rel=1e-4)


# The generator itself.


def test_path_length_of_a_linear_generator_is_its_mean_squared_stretch() -> None:
    torch.manual_seed(0)
    weight = 0.05 * torch.randn(12, 7, dtype=torch.float64)

    class Linear(torch.nn.Module):
        z_dim, z_distribution, num_classes = 7, "uniform", 0

        def forward(self, z: torch.Tensor, y: None = None) -> torch.Tensor:
            return (z.double() @ weight.T).reshape(-1, 3, 2, 2)

    fake = side(images=np.zeros((2, 2, 2, 3), np.uint8))
    network = Linear()
    fake.source = Generated("x", range(2), 0, lambda seeds, labels: np.zeros(0), network)  # type: ignore[arg-type]
    given = reference(side(images=np.zeros((2, 2, 2, 3), np.uint8)))
    given.extractor = SimpleNamespace(  # type: ignore[assignment]
        __call__=None, name="pixels", device=CPU
    )
    given.extractor = lambda images: SimpleNamespace(features=images.double().flatten(1))  # type: ignore[assignment]
    found = ppl.scores(given, fake)["ppl_features"]
    # |W (b - a)|^2 in pixels of 127.5 a unit; b - a has variance 2 / 3 in every place.
    expected = 127.5**2 * float(weight.square().sum()) * 2 / 3
    assert found.value == pytest.approx(expected, rel=0.08)
    fake.source = None
    with pytest.raises(DataError, match="needs a run"):
        ppl.scores(given, fake)


def test_points_on_the_arc_keep_their_length() -> None:
    a, b = np.eye(4, dtype=np.float32)[:2], np.eye(4, dtype=np.float32)[2:]
    point = ppl.path_points(a, b, np.array([0.5, 0.25]), "normal")
    np.testing.assert_allclose(np.linalg.norm(point, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(point[0, [0, 2]], 0.5**0.5, rtol=1e-6)


def test_metrics_are_found_in_their_folder_and_say_what_they_need() -> None:
    names = module_names("gantrain.metrics")
    assert len(names) == 26
    readme = Path("gantrain/metrics/README.md").read_text()
    for name in names:
        assert f"`{name}`" in readme, f"{name} is not in the table of gantrain/metrics/README.md"
