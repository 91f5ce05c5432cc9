import math

import numpy as np
import pytest

from ssl_jax.data import points
from ssl_jax.types import UsageError


def test_the_grid_has_25_means_two_apart_around_the_origin():
    means = points.Mixture().means
    assert (means.dtype, means.shape) == (np.float32, (25, 2))
    assert {tuple(mean) for mean in means.tolist()} == {(x, y) for x in range(-4, 5, 2) for y in range(-4, 5, 2)}
    assert np.abs(points.Mixture(spacing=0.5).means).max() == 1


def test_the_ring_has_eight_means_at_equal_angles():
    means = points.Mixture("ring", spacing=3.0).means
    assert (means.dtype, means.shape) == (np.float32, (8, 2))
    np.testing.assert_allclose(np.linalg.norm(means, axis=1), 3, rtol=1e-6)
    steps = np.linalg.norm(means - np.roll(means, 1, axis=0), axis=1)
    np.testing.assert_allclose(steps, 6 * math.sin(math.pi / 8), rtol=1e-6)


@pytest.mark.parametrize("layout", ["grid", "ring"])
@pytest.mark.parametrize("deviation", [0.05, 0.4])
def test_points_are_round_gaussians_about_their_means(layout, deviation):
    mixture = points.Mixture(layout, deviation=deviation)
    drawn, labels = mixture.draw(seed=0, count=50_000)
    assert (drawn.dtype, drawn.shape, labels.dtype, labels.shape) == (np.float32, (50_000, 2), np.int32, (50_000,))
    offsets = (drawn - mixture.means[labels]).astype(np.float64)
    np.testing.assert_allclose(offsets.mean(axis=0), 0, atol=0.02 * deviation)
    np.testing.assert_allclose(np.cov(offsets.T), deviation**2 * np.eye(2), atol=0.02 * deviation**2)
    near = np.linalg.norm(offsets, axis=1) <= 3 * deviation
    assert near.mean() == pytest.approx(1 - math.exp(-4.5), abs=0.002)
    for mode in range(len(mixture.means)):
        np.testing.assert_allclose(
            drawn[labels == mode].mean(axis=0), mixture.means[mode], atol=6 * deviation / math.sqrt(2000)
        )


@pytest.mark.parametrize("count", [1, 24, 25, 1003])
def test_modes_are_equally_frequent_within_one(count):
    counts = np.bincount(points.Mixture().draw(0, count)[1], minlength=25)
    assert counts.sum() == count
    assert counts.max() - counts.min() <= 1


def test_draws_are_the_seeds():
    mixture = points.Mixture()
    np.testing.assert_array_equal(mixture.draw(3, 100)[0], mixture.draw(3, 100)[0])
    assert np.abs(mixture.draw(3, 100)[0] - mixture.draw(4, 100)[0]).min() > 0


@pytest.mark.parametrize("lengths", [{"spacing": 0.0}, {"spacing": -1.0}, {"deviation": 0.0}])
def test_lengths_of_nothing_are_refused(lengths):
    with pytest.raises(UsageError, match="must be above 0"):
        points.Mixture(**lengths)


def test_the_feed_gives_each_point_once_an_epoch_beside_its_mode(devices):
    mixture = points.Mixture()
    feed = points.training(mixture, batch_size=50, examples=200, seed=7)
    assert (feed.examples, feed.batch_size) == (200, 50)
    assert {name: (spec.shape, spec.dtype) for name, spec in feed.spec.items()} == {
        "image": ((50, 2), np.float32),
        "label": ((50,), np.int32),
    }
    batches = feed.batches(devices, seed=0, first_step=0)
    epoch = [next(batches) for _ in range(4)]
    drawn = np.concatenate([batch["image"] for batch in epoch])
    labels = np.concatenate([batch["label"] for batch in epoch])
    assert (np.linalg.norm(drawn - mixture.means[labels], axis=1) < 6 * mixture.deviation).all()
    expected, _ = mixture.draw(7, 200)
    np.testing.assert_array_equal(drawn[np.lexsort(drawn.T)], expected[np.lexsort(expected.T)])
    assert not np.array_equal(drawn, expected)


def test_a_batch_larger_than_the_set_is_refused():
    with pytest.raises(UsageError, match="batch_size=51"):
        points.training(points.Mixture(), batch_size=51, examples=50)
