import numpy as np
import pytest
from scipy import linalg, special

from ssl_jax import types
from ssl_jax.analysis import agreement, spectrum


def gaussian(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def unit(features):
    features = features.astype(np.float64)
    return features / np.linalg.norm(features, axis=-1, keepdims=True)


@pytest.mark.parametrize("at_once", [None, 60])
def test_views_agree_as_their_formulas_say(at_once, monkeypatch):
    if at_once:
        monkeypatch.setattr(agreement, "_AT_ONCE", at_once)
    first, second = gaussian((50, 7)), gaussian((50, 7), seed=1)
    cosines = np.sum(unit(first) * unit(second), axis=1)
    assert agreement.mean_cosine(first, second) == pytest.approx(cosines.mean(), abs=1e-6)
    assert agreement.alignment(first, second) == pytest.approx(np.mean(2 - 2 * cosines), abs=1e-6)


def test_equal_opposite_and_orthogonal_views():
    first = gaussian((40, 6))
    assert agreement.alignment(first, 3 * first) == pytest.approx(0.0, abs=1e-12)
    assert agreement.mean_cosine(first, 3 * first) == pytest.approx(1.0, abs=1e-6)
    assert agreement.alignment(first, -first) == pytest.approx(4.0, abs=1e-5)
    assert agreement.mean_cosine(first, -first) == pytest.approx(-1.0, abs=1e-6)
    turned = np.stack([-first[:, 1], first[:, 0]], axis=1)
    assert agreement.alignment(first[:, :2], turned) == pytest.approx(2.0, abs=1e-5)


def test_zeros_have_no_direction():
    zeros, ones = np.zeros((3, 2)), np.ones((3, 2))
    assert agreement.mean_cosine(zeros, ones) == agreement.alignment(zeros, zeros) == 0.0
    assert agreement.alignment(zeros, ones) == pytest.approx(1.0)


@pytest.mark.parametrize("at_once", [2048, 16, 7, 1])
def test_uniformity_counts_every_pair_once(at_once, monkeypatch):
    monkeypatch.setattr(agreement, "_ROWS_AT_ONCE", at_once)
    features = gaussian((37 if at_once > 1 else 9, 5)) * 4
    directions = unit(features)
    squared = ((directions[:, None] - directions[None]) ** 2).sum(axis=-1)
    pairs = squared[np.triu_indices(len(features), 1)]
    assert agreement.uniformity(features) == pytest.approx(np.log(np.mean(np.exp(-2 * pairs))), abs=1e-6)


def test_uniformity_of_an_even_circle():
    angles = np.arange(200) * 2 * np.pi / 200
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    # exp(-4 + 4 cos a), whose mean over a circle is exp(-4) I_0(4); every row's pair with itself is not counted.
    expected = np.log((200 * np.exp(-4) * special.i0(4) - 1) / 199)
    assert agreement.uniformity(circle) == pytest.approx(expected, abs=1e-6)


def test_uniformity_of_collapse_and_of_two_antipodal_clusters():
    features = np.tile([[0.3, -0.1, 0.7]], (12, 1))
    assert agreement.uniformity(features) == pytest.approx(0.0, abs=1e-6)
    features[6:] *= -1
    assert agreement.uniformity(features) == pytest.approx(np.log((30 + 36 * np.exp(-8)) / 66), abs=1e-6)
    assert agreement.uniformity(features[5:7]) == pytest.approx(-8.0, abs=1e-5)


def test_uniformity_of_some_rows_takes_them_evenly():
    features = gaussian((100, 4))
    assert agreement.uniformity(features, rows=10) == agreement.uniformity(features[::10])
    assert agreement.uniformity(features, rows=1000) == agreement.uniformity(features)
    # Sorted by class, the first rows alone would be one class.
    clusters = np.repeat([[1.0, 0.0], [-1.0, 0.0]], 50, axis=0)
    assert agreement.uniformity(clusters, rows=10) == pytest.approx(np.log((20 + 25 * np.exp(-8)) / 45), abs=1e-6)


@pytest.mark.parametrize("at_once", [None, 1])
@pytest.mark.parametrize("shape", [(60, 4, 9), (7, 3, 20)], ids=["tall", "wide"])
def test_lidar_is_the_rank_of_the_whitened_matrix(shape, at_once, monkeypatch):
    if at_once:
        monkeypatch.setattr(agreement, "_AT_ONCE", at_once)
    images, each, width = shape
    views = (gaussian((images, 1, width)) * 0.7 ** np.arange(width) + 0.2 * gaussian(shape, seed=1) + 4).astype(
        np.float32
    )
    flat = views.astype(np.float64)
    means = flat.mean(axis=1)
    between = np.cov(means, rowvar=False, ddof=0)
    inner = (flat - means[:, None]).reshape(-1, width)
    root = linalg.inv(linalg.sqrtm(inner.T @ inner / (images * each) + 1e-4 * np.eye(width)).real)
    eigenvalues = np.maximum(np.linalg.eigvalsh(root @ between @ root), 0)
    shares = eigenvalues / eigenvalues.sum() + 1e-7
    assert agreement.lidar(views) == pytest.approx(np.exp(-np.sum(shares * np.log(shares))), rel=1e-6)


def test_lidar_of_identical_views_is_the_rank_of_the_covariance():
    features = gaussian((200, 8)) * 0.6 ** np.arange(8, dtype=np.float32)
    views = np.repeat(features[:, None], 3, axis=1)
    variances = np.linalg.eigvalsh(np.cov(features.astype(np.float64), rowvar=False))
    assert agreement.lidar(views) == pytest.approx(spectrum.rank_me(variances), rel=1e-5)


def test_lidar_counts_directions_by_what_views_leave():
    # Four even directions; the views blur one of them until it says nothing, though its variance is largest.
    images = np.eye(4, dtype=np.float32)[np.arange(80) % 4]
    images = np.concatenate([images, -images]) @ linalg.hadamard(4).astype(np.float32)
    views = np.stack([images, images], axis=1)
    assert agreement.lidar(views) == pytest.approx(4.0, rel=1e-5)
    views[:, 0, 0] += 1000
    views[:, 1, 0] -= 1000
    assert agreement.lidar(views) == pytest.approx(3.0, rel=1e-4)


def test_lidar_of_images_that_do_not_differ_is_0():
    assert agreement.lidar(np.full((37, 2, 5), 0.1)) == 0.0
    noise = gaussian((1, 2, 5))
    assert agreement.lidar(np.repeat(noise, 30, axis=0)) == 0.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: agreement.alignment(np.ones((3, 2)), np.ones((4, 2))), r"\(3, 2\) and \(4, 2\)"),
        (lambda: agreement.mean_cosine(np.ones(3), np.ones(3)), r"give \[n, d\]"),
        (lambda: agreement.alignment(np.ones((1, 2)), np.array([[1, np.nan]])), "diverged"),
        (lambda: agreement.uniformity(np.array([[1, np.inf], [0, 1]])), "diverged"),
        (lambda: agreement.uniformity(np.ones((1, 2))), "more images"),
        (lambda: agreement.uniformity(np.ones((5, 2)), rows=1), "rows=1"),
        (lambda: agreement.lidar(np.ones((5, 2))), r"give \[n, q, d\]"),
        (lambda: agreement.lidar(np.ones((5, 1, 2))), "5 images in 1 views"),
        (lambda: agreement.lidar(np.ones((1, 5, 2))), "1 images in 5 views"),
        (lambda: agreement.lidar(np.ones((5, 5, 2)), delta=0), "delta=0"),
        (lambda: agreement.lidar(np.full((5, 5, 2), np.nan)), "diverged"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(call, message):
    with pytest.raises(types.UsageError, match=message) as refusal:
        call()
    assert "\n" not in str(refusal.value)
