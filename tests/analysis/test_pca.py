import numpy as np
import pytest
from sklearn.decomposition import PCA

from ssl_jax import types
from ssl_jax.analysis import pca


@pytest.mark.parametrize("shape", [(200, 12), (15, 40)], ids=["tall", "wide"])
def test_equals_scikit_learn_signs_included(shape):
    random = np.random.default_rng(0)
    scales = 3.0 * 0.7 ** np.arange(shape[1])
    rotation = np.linalg.qr(random.normal(size=(shape[1], shape[1])))[0]
    features = (random.normal(size=shape) * scales[None]) @ rotation + 5
    reference = PCA(3, svd_solver="full").fit(features)
    projected, components, ratio = pca.pca(features, 3)
    np.testing.assert_allclose(components, reference.components_, atol=1e-4)
    np.testing.assert_allclose(projected, reference.transform(features), atol=1e-4 * np.abs(projected).max())
    np.testing.assert_allclose(ratio, reference.explained_variance_ratio_, atol=1e-4)


def test_signs_do_not_hang_on_the_order_of_rows():
    features = np.random.default_rng(1).normal(size=(60, 5)) * np.array([[5.0, 3.0, 1.0, 0.5, 0.1]])
    forwards, backwards = pca.pca(features, 2), pca.pca(features[::-1], 2)
    np.testing.assert_allclose(forwards.components, backwards.components, atol=1e-4)
    assert np.all(np.take_along_axis(forwards.components, np.abs(forwards.components).argmax(1)[:, None], 1) > 0)


def test_constant_features_explain_nothing_and_stay_finite():
    projected, components, ratio = pca.pca(np.full((10, 4), 2.0), 2)
    assert np.all(np.isfinite(components))
    np.testing.assert_array_equal(ratio, [0.0, 0.0])
    np.testing.assert_array_equal(projected, np.zeros((10, 2)))


def test_too_many_components_are_refused():
    with pytest.raises(types.UsageError, match="ask for 1 to 3"):
        pca.pca(np.zeros((3, 7)), 4)
