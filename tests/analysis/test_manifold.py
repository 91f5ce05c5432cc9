import numpy as np
import pytest

from ssl_jax import types
from ssl_jax.analysis import manifold


def cloud(count, width=5, seed=0, shift=0.0):
    return (np.random.default_rng(seed).normal(size=(count, width)) + shift).astype(np.float32)


def distances(first, second):
    """Every distance by itself, without a squared length that could cancel."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    return np.sqrt(((first[:, None] - second[None]) ** 2).sum(axis=-1))


def brute(real, fake, neighbours):
    reach_real, reach_fake = (np.sort(distances(side, side), axis=1)[:, neighbours] for side in (real, fake))
    between = distances(real, fake)
    return {
        "precision_recall": (
            (between <= reach_real[:, None]).any(axis=0).mean(),
            (between <= reach_fake).any(axis=1).mean(),
        ),
        "density_coverage": (
            (between < reach_real[:, None]).sum(axis=0).mean() / neighbours,
            (between.min(axis=1) < reach_real).mean(),
        ),
    }


@pytest.mark.parametrize("name", ["precision_recall", "density_coverage"])
@pytest.mark.parametrize("neighbours", [1, 5])
@pytest.mark.parametrize("at_once", [None, 700, 1])
@pytest.mark.parametrize("far", [0, 1e5])
def test_shares_equal_those_by_brute_force(name, neighbours, at_once, far, monkeypatch):
    if at_once:
        monkeypatch.setattr(manifold, "_DISTANCES_AT_ONCE", at_once)
    real, fake = cloud(110, shift=far), cloud(93, seed=1, shift=far + 0.8)
    found = getattr(manifold, name)(real, fake, neighbours=neighbours)
    expected = brute(real, fake, neighbours)[name]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert all(0.02 < share < 0.98 for share in expected) and expected[0] != expected[1]


def test_distances_on_a_grid_are_ties_and_the_edge_belongs_to_precision_alone():
    # All radii are 1, and each fake feature is at 1 from its nearest real ones or equal to one.
    real = np.arange(10.0)[:, None]
    fake = np.array([[-1.0], [10.0], [11.0]])
    for shift in (0.0, 1 / 3, 1e5 / 3):
        assert manifold.precision_recall(real + shift, fake + shift, neighbours=1)[0] == 2 / 3
        assert manifold.density_coverage(real + shift, fake + shift, neighbours=1) == (0.0, 0.0)


def test_rounding_moves_no_feature_across_an_edge():
    # Pairs at one distance, far from other pairs, and a fake feature at just that distance from the first of each.
    random = np.random.default_rng(0)
    centres, step = random.integers(-10000, 10000, (75, 9)) / 8, random.integers(-9, 9, (75, 9)) / 8
    real, fake = np.concatenate([centres, centres + step]), centres - step
    assert manifold.precision_recall(real, fake, neighbours=1)[0] == 1.0
    assert manifold.density_coverage(real, fake, neighbours=1) == (0.0, 0.0)


@pytest.mark.parametrize("width", [2, 300])
@pytest.mark.parametrize("at_once", [None, 997])
def test_equal_sets_score_one_in_whatever_order(width, at_once, monkeypatch):
    if at_once:
        monkeypatch.setattr(manifold, "_DISTANCES_AT_ONCE", at_once)
    real = cloud(150, width)
    fake = real[np.random.default_rng(0).permutation(150)]
    assert manifold.precision_recall(real, fake) == (1.0, 1.0)
    # Each ball holds its own feature and k - 1 neighbours; the k-th is on the edge, and rounding must not let it in.
    assert manifold.density_coverage(real, fake) == (1.0, 1.0)


def test_features_that_are_all_one():
    real = np.full((20, 30), 0.1, np.float32)
    assert manifold.precision_recall(real, real) == (1.0, 1.0)
    assert manifold.density_coverage(real, real) == (0.0, 0.0)
    # Beside others, so that their mean is not the feature itself.
    real = np.concatenate([real, cloud(20, 30, shift=5)])
    assert manifold.precision_recall(real, np.full((9, 30), 0.1, np.float32))[0] == 1.0
    assert manifold.density_coverage(real, np.full((9, 30), 0.1, np.float32)) == (0.0, 0.0)


def test_disjoint_sets_score_nothing():
    real, fake = cloud(60), cloud(50, seed=1, shift=100)
    assert manifold.precision_recall(real, fake) == (0.0, 0.0)
    assert manifold.density_coverage(real, fake) == (0.0, 0.0)


def test_a_dropped_mode_costs_recall_and_coverage_only():
    real = np.concatenate([cloud(100), cloud(100, seed=1, shift=50)])
    precision, recall = manifold.precision_recall(real, cloud(100, seed=2))
    density, coverage = manifold.density_coverage(real, cloud(100, seed=2))
    assert precision > 0.8 and recall < 0.5 and density > 0.8 and coverage < 0.5


def test_density_and_coverage_of_one_distribution_are_as_lemmas_1_and_2_say():
    found = [manifold.density_coverage(cloud(100, seed=seed), cloud(100, seed=1000 + seed)) for seed in range(60)]
    drawn = np.arange(1, 6)
    expected = (1.0, 1 - np.prod((100 - drawn) / (200 - drawn)))
    np.testing.assert_array_less(np.abs(np.mean(found, axis=0) - expected), 3 * np.std(found, axis=0) / np.sqrt(60))
    assert expected[1] == pytest.approx(0.972, abs=1e-3)


@pytest.mark.parametrize("measure", [manifold.precision_recall, manifold.density_coverage])
def test_what_has_no_neighbours_is_refused(measure):
    with pytest.raises(types.UsageError, match=r"7 neighbours of each of 7 real features.* ask for 1 to 6"):
        measure(cloud(7), cloud(20), neighbours=7)
    with pytest.raises(types.UsageError, match="0 neighbours of each of 7 real"):
        measure(cloud(7), cloud(20), neighbours=0)
    with pytest.raises(types.UsageError, match=r"1 neighbours of each of 1 real.*; give more images"):
        measure(cloud(1), cloud(20), neighbours=1)
    with pytest.raises(types.UsageError, match=r"\(20, 5\), \(20, 4\).*one network and layer"):
        measure(cloud(20), cloud(20, 4))
    for fake in (cloud(0), cloud(20)[0]):
        with pytest.raises(types.UsageError, match="one row an image is needed"):
            measure(cloud(20), fake)
    for side in (0, 1):
        sides = [cloud(20), cloud(20)]
        sides[side][3, 1] = np.nan
        with pytest.raises(types.UsageError, match="finite ones are needed"):
            measure(*sides)


def test_few_fake_features_have_a_density_but_no_recall():
    real, fake = cloud(20), cloud(20)[:3] / 2
    inside = distances(real, fake) < np.sort(distances(real, real), axis=1)[:, 5:6]
    assert manifold.density_coverage(real, fake) == pytest.approx((inside.sum() / 15, inside.any(axis=1).mean()))
    with pytest.raises(types.UsageError, match=r"3 neighbours of each of 3 fake features.* ask for 1 to 2"):
        manifold.precision_recall(real, fake)
