import numpy as np
import pytest
from sklearn.decomposition import PCA

from ssl_jax import types
from ssl_jax.analysis import pca


@pytest.fixture(autouse=True, params=[True, False], ids=["host", "device"])
def multiplied_by(request, monkeypatch):
    """Either way of multiplying, wherever the tests run."""
    monkeypatch.setattr(pca, "_on_host", lambda: request.param)


@pytest.mark.parametrize("offset", [0.1, 5])
@pytest.mark.parametrize("shape", [(200, 12), (15, 40)], ids=["tall", "wide"])
def test_equals_scikit_learn_signs_included(shape, offset):
    random = np.random.default_rng(0)
    scales = 3.0 * 0.7 ** np.arange(shape[1])
    rotation = np.linalg.qr(random.normal(size=(shape[1], shape[1])))[0]
    features = (random.normal(size=shape) * scales[None]) @ rotation + offset
    reference = PCA(3, svd_solver="full").fit(features)
    projected, components, ratio, mean = pca.pca(features, 3)
    np.testing.assert_allclose(components, reference.components_, atol=1e-4)
    np.testing.assert_allclose(projected, reference.transform(features), atol=1e-4 * np.abs(projected).max())
    np.testing.assert_allclose(ratio, reference.explained_variance_ratio_, atol=1e-4)
    np.testing.assert_allclose(mean, reference.mean_, atol=1e-4)


def test_signs_do_not_hang_on_the_order_of_rows():
    features = np.random.default_rng(1).normal(size=(60, 5)) * np.array([[5.0, 3.0, 1.0, 0.5, 0.1]])
    forwards, backwards = pca.pca(features, 2), pca.pca(features[::-1], 2)
    np.testing.assert_allclose(forwards.components, backwards.components, atol=1e-4)
    assert np.all(np.take_along_axis(forwards.components, np.abs(forwards.components).argmax(1)[:, None], 1) > 0)


def test_constant_features_explain_nothing_and_stay_finite():
    projected, components, ratio, _ = pca.pca(np.full((10, 4), 2.0), 2)
    assert np.all(np.isfinite(components))
    np.testing.assert_array_equal(ratio, [0.0, 0.0])
    np.testing.assert_array_equal(projected, np.zeros((10, 2)))


def test_too_many_components_are_refused():
    with pytest.raises(types.UsageError, match="ask for 1 to 3"):
        pca.pca(np.zeros((3, 7)), 4)


def test_chunks_and_a_large_offset_change_nothing(monkeypatch):
    monkeypatch.setattr(pca, "_ROWS_AT_ONCE", 32)
    monkeypatch.setattr(pca, "_CHANNELS_AT_ONCE", 4)
    monkeypatch.setattr(pca, "_NUMBERS_AT_ONCE", 6 * 96)
    random = np.random.default_rng(2)
    features = (random.standard_normal((201, 6)) * np.array([[3.0, 2.0, 1.0, 0.5, 0.2, 0.1]]) + 100).astype(np.float32)
    # The first chunk is of another mean than the rest.
    features[:64] += 5
    reference = PCA(6, svd_solver="full").fit(features.astype(np.float64))
    found = pca.pca(features, 6)
    np.testing.assert_allclose(found.components, reference.components_, atol=1e-4)
    np.testing.assert_allclose(found.projected, reference.transform(features.astype(np.float64)), atol=1e-4)
    np.testing.assert_allclose(found.mean, reference.mean_, atol=1e-4)
    np.testing.assert_allclose(pca.spread(features), reference.explained_variance_ratio_, atol=1e-6)


@pytest.mark.parametrize("shape", [(50, 7), (7, 50)], ids=["tall", "wide"])
def test_the_spread_of_all_components_and_what_they_rebuild(shape):
    features = np.random.default_rng(3).standard_normal(shape) + 3
    reference = PCA(svd_solver="full").fit(features)
    share = pca.spread(features)
    assert share.dtype == np.float64 and share.sum() == pytest.approx(1)
    np.testing.assert_allclose(share, reference.explained_variance_ratio_, atol=1e-6)
    principal = pca.pca(features, 7)
    for count in (0, 3, 7):
        centred = features - reference.mean_
        axes = reference.components_[:count]
        np.testing.assert_allclose(
            pca.reconstruct(principal, count), centred @ axes.T @ axes + reference.mean_, atol=1e-4
        )
    np.testing.assert_allclose(pca.reconstruct(principal, 7), features, atol=1e-4)
    np.testing.assert_allclose(principal.components @ principal.components.T, np.eye(7), atol=1e-5)


def test_constant_features_spread_nowhere():
    np.testing.assert_array_equal(pca.spread(np.full((10, 4), 0.1)), np.zeros(4))


def test_features_that_are_not_finite_and_components_not_there_are_refused():
    for odd in (np.nan, np.inf):
        features = np.ones((5, 3))
        features[2, 1] = odd
        with pytest.raises(types.UsageError, match="infinities or no numbers"):
            pca.pca(features, 1)
        with pytest.raises(types.UsageError, match="infinities or no numbers"):
            pca.spread(features)
    with pytest.raises(types.UsageError, match="from 3 of 2 principal components"):
        pca.reconstruct(pca.pca(np.eye(4), 2), 3)
    with pytest.raises(types.UsageError, match="one row and one channel"):
        pca.spread(np.zeros((0, 3)))
