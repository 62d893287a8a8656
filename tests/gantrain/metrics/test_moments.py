import numpy as np
import pytest
import torch
from scipy import linalg

from ganinfer.errors import DataError
from gantrain.metrics._moments import Moments, frechet_distance
from gantrain.metrics.fid import standard_error

RNG = np.random.default_rng(0)


def moments_of(features: np.ndarray, batch: int = 100) -> Moments:
    return Moments.of(features[i : i + batch] for i in range(0, len(features), batch))


def test_streamed_moments_equal_numpys() -> None:
    features = RNG.normal(1e4, 3.0, (1234, 9))  # a mean that would ruin E x^2 - (E x)^2
    moments = moments_of(features, batch=77)
    np.testing.assert_allclose(moments.mean, features.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(moments.covariance, np.cov(features.T), rtol=1e-9)


def test_distance_of_known_gaussians() -> None:
    """Commuting covariances: |m|^2 + sum (sqrt a - sqrt b)^2."""
    q = linalg.qr(RNG.normal(size=(50, 50)))[0]
    a, b = RNG.uniform(0.1, 9, 50), RNG.uniform(0.1, 9, 50)
    mean = RNG.normal(size=50)
    one, two = (
        Moments.given(torch.from_numpy(m), torch.from_numpy(q @ np.diag(s) @ q.T), 1000)
        for m, s in ((np.zeros(50), a), (mean, b))
    )
    expected = (mean**2).sum() + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    assert frechet_distance(one, two) == pytest.approx(expected, rel=1e-8)


def test_distance_agrees_with_the_matrix_root_of_scipy() -> None:
    x, y = RNG.normal(size=(500, 20)), RNG.normal(0.3, 1.4, (400, 20))
    root = linalg.sqrtm(np.cov(x.T) @ np.cov(y.T)).real
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(np.cov(x.T) + np.cov(y.T) - 2 * root)
    assert frechet_distance(moments_of(x), moments_of(y)) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(("num_images", "num_features"), [(5, 30), (400, 30), (60, 64), (3000, 64)])
def test_distance_to_itself_is_zero_also_where_the_covariance_is_singular(
    num_images: int, num_features: int
) -> None:
    features = 10 * RNG.normal(size=(num_images, num_features))
    assert abs(frechet_distance(moments_of(features), moments_of(features[::-1].copy()))) < 1e-6


def test_a_singular_covariance_of_many_images_is_no_obstacle() -> None:
    thin = RNG.normal(size=(500, 8)) @ RNG.normal(size=(8, 40))  # rank 8 of 40
    shifted = thin + 3
    assert abs(frechet_distance(moments_of(thin), moments_of(thin[::-1].copy()))) < 1e-6
    assert frechet_distance(moments_of(thin), moments_of(shifted)) == pytest.approx(360, rel=1e-6)


def test_fewer_images_than_features_give_what_the_whole_matrices_give() -> None:
    """Fast FID is exact: the factor of few images has as many columns as there are images."""
    few, many = RNG.normal(size=(25, 60)), RNG.normal(0.1, 1.2, (300, 60))
    fast = moments_of(few)
    assert fast.factor.shape == (60, 25)
    whole = Moments.given(fast.mean, fast.covariance, 25)
    assert whole.factor.shape[1] < 60
    expected = frechet_distance(whole, moments_of(many))
    assert frechet_distance(fast, moments_of(many)) == pytest.approx(expected, rel=1e-9)


def test_moments_go_on_after_their_factor_was_taken() -> None:
    features = RNG.normal(size=(200, 10))
    moments = moments_of(features[:100])
    assert moments.factor.shape == (10, 10)
    moments.update(features[100:])
    both = moments.factor @ moments.factor.T
    np.testing.assert_allclose(both, np.cov(features.T), rtol=1e-9)


def test_one_image_none_and_a_nan_are_refused() -> None:
    with pytest.raises(DataError, match="covariance of 1 images"):
        _ = moments_of(np.ones((1, 3))).covariance
    with pytest.raises(DataError, match="covariance of 0 images"):
        _ = Moments.of([]).covariance
    with pytest.raises(DataError, match="NaN"):
        moments_of(np.array([[1.0, np.nan]]))


def test_the_standard_error_is_the_spread_of_many_samplings() -> None:
    mixing = RNG.normal(size=(6, 6))
    real = Moments.given(torch.zeros(6), torch.eye(6), 10_000)
    found, errors = [], []
    for _ in range(200):
        features = RNG.normal(size=(500, 6)) @ mixing + 0.2
        moments = moments_of(features)
        found.append(frechet_distance(real, moments))
        errors.append(standard_error(real, moments, torch.from_numpy(features)))
    assert np.mean(errors) == pytest.approx(np.std(found), rel=0.15)
