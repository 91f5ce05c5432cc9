import numpy as np
import pytest
from sklearn import covariance, ensemble
from sklearn import metrics as sklearn_metrics
from sklearn import neighbors as sklearn_neighbors

from ssl_jax import types
from ssl_jax.analysis import anomaly

SCORES = {
    "knn_distance": lambda features, **options: anomaly.knn_distance(features, 3, **options),
    "mahalanobis": anomaly.mahalanobis,
    "isolation_forest": anomaly.isolation_forest,
}


def gaussian(shape, seed=0, shift=0.0):
    return (np.random.default_rng(seed).normal(size=shape) + shift).astype(np.float32)


def with_outliers():
    """Features [64, 5] around 2 of which every eighth is 9 deviations off, and which rows those are."""
    features, odd = gaussian((64, 5), shift=2.0), np.arange(64) % 8 == 0
    features[odd, 1] += 9
    return features, odd


@pytest.mark.parametrize("name", SCORES)
def test_what_lies_far_from_normal_rows_scores_highest(name):
    features, odd = with_outliers()
    scores = SCORES[name](features, normal=~odd)
    assert scores.dtype == np.float64 and scores.shape == (64,)
    assert anomaly.auroc(scores, odd) > (0.9 if name == "isolation_forest" else 1 - 1e-9)


@pytest.mark.parametrize("name", SCORES)
def test_a_score_rests_on_the_normal_rows_alone(name):
    features, odd = with_outliers()
    scores = SCORES[name](features, normal=~odd)
    moved = features.copy()
    moved[odd] = 2
    changed = SCORES[name](moved, normal=~odd)
    np.testing.assert_allclose(changed[~odd], scores[~odd], rtol=1e-4)
    assert np.abs(SCORES[name](moved)[~odd] - SCORES[name](features)[~odd]).max() > 1e-3


@pytest.mark.parametrize("k", [1, 4, 39])
def test_neighbour_distance_is_the_kth_without_the_row_itself(k):
    features = gaussian((40, 6))
    reference = sklearn_neighbors.NearestNeighbors(n_neighbors=k).fit(features).kneighbors()[0][:, -1]
    np.testing.assert_allclose(anomaly.knn_distance(features, k), reference, rtol=1e-5)


def test_neighbour_distance_to_normal_rows_only():
    features = np.array([[0.0], [1.0], [3.0], [10.0], [11.0]])
    normal = np.array([True, False, True, False, True])
    # To 0, 3 and 11; each of those not to itself.
    np.testing.assert_allclose(anomaly.knn_distance(features, 1, normal=normal), [3, 1, 3, 1, 8], rtol=1e-5)
    np.testing.assert_allclose(anomaly.knn_distance(features, 2, normal=normal), [11, 2, 8, 7, 11], rtol=1e-5)


def test_a_copy_is_a_neighbour_at_no_distance():
    features = gaussian((10, 4))
    features[7] = features[2]
    scores = anomaly.knn_distance(features, 1)
    assert scores[2] == scores[7] == pytest.approx(0.0, abs=1e-3)
    assert np.all(np.delete(scores, [2, 7]) > 0.1)


@pytest.mark.parametrize("shape", [(300, 6), (20, 50), (30, 1)], ids=["tall", "wide", "one channel"])
@pytest.mark.parametrize("at_once", [None, 70])
def test_shrunk_covariance_equals_scikit_learns(shape, at_once, monkeypatch):
    if at_once:
        monkeypatch.setattr(anomaly, "_AT_ONCE", at_once)
    features = gaussian(shape, shift=4.0) * 0.8 ** np.arange(shape[1], dtype=np.float32)
    exact = features.astype(np.float64)
    reference = covariance.LedoitWolf().fit(exact)
    assert anomaly.ledoit_wolf_shrinkage(features) == pytest.approx(reference.shrinkage_, abs=1e-9)
    np.testing.assert_allclose(anomaly.mahalanobis(features) ** 2, reference.mahalanobis(exact), rtol=1e-6)
    given = covariance.ShrunkCovariance(shrinkage=0.3).fit(exact)
    np.testing.assert_allclose(anomaly.mahalanobis(features, shrinkage=0.3) ** 2, given.mahalanobis(exact), rtol=1e-6)


def test_distance_without_shrinkage_is_free_of_scale_and_full_shrinkage_is_euclidean():
    features = gaussian((200, 4)) @ np.diag([1, 10, 100, 1000]).astype(np.float32)
    plain = anomaly.mahalanobis(features, shrinkage=0)
    np.testing.assert_allclose(np.mean(plain**2), 4.0, rtol=1e-9)
    np.testing.assert_allclose(
        plain, anomaly.mahalanobis(features[:, :1] * 0 + features * 0.01, shrinkage=0), rtol=1e-4
    )
    lengths = np.linalg.norm(features - features.mean(axis=0), axis=1)
    np.testing.assert_allclose(
        anomaly.mahalanobis(features, shrinkage=1) / lengths, np.sqrt(4 / np.mean(lengths**2)), rtol=1e-4
    )


def test_channels_without_variance_do_not_count():
    features = gaussian((50, 3))
    wider = np.concatenate([features, np.full((50, 2), 0.1, np.float32)], axis=1)
    np.testing.assert_allclose(
        anomaly.mahalanobis(wider, shrinkage=0), anomaly.mahalanobis(features, shrinkage=0), rtol=1e-6
    )


def test_normal_rows_that_are_all_equal_have_defined_scores():
    features = np.full((37, 3), 0.1, np.float32)
    np.testing.assert_array_equal(anomaly.mahalanobis(features), np.zeros(37))
    np.testing.assert_allclose(anomaly.knn_distance(features, 2), 0.0, atol=1e-6)
    assert np.ptp(anomaly.isolation_forest(features)) == 0
    jittered = np.where(gaussian((37, 3)) > 0, np.nextafter(features, np.float32(1)), features)
    np.testing.assert_array_equal(anomaly.mahalanobis(jittered), np.zeros(37))


def test_the_forest_is_scikit_learns_and_a_function_of_its_seed():
    features, odd = with_outliers()
    reference = ensemble.IsolationForest(n_estimators=20, random_state=3).fit(features[~odd])
    scores = anomaly.isolation_forest(features, normal=~odd, seed=3, trees=20)
    np.testing.assert_array_equal(scores, -reference.score_samples(features))
    assert np.any(scores != anomaly.isolation_forest(features, normal=~odd, seed=4, trees=20))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("share", [0.02, 0.5])
def test_auroc_equals_scikit_learns(ties, share):
    random = np.random.default_rng(0)
    odd = random.random(300) < share
    scores = random.normal(size=300) + odd
    scores = np.round(scores) if ties else scores
    assert anomaly.auroc(scores, odd) == pytest.approx(sklearn_metrics.roc_auc_score(odd, scores), abs=1e-12)


def test_auroc_by_hand():
    assert anomaly.auroc([1, 2, 3, 4], [False, False, True, True]) == 1.0
    assert anomaly.auroc([4, 3, 2, 1], [False, False, True, True]) == 0.0
    assert anomaly.auroc([7, 7, 7], [False, True, False]) == 0.5
    assert anomaly.auroc([1, 2, 2, np.inf], [False, True, False, True]) == 0.875


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize(
    ("features", "options", "message"),
    [
        (np.array([[1, np.nan]] * 5), {}, "diverged"),
        (np.array([[1, np.inf]] * 5), {}, "diverged"),
        (np.zeros(5), {}, r"give \[n, d\]"),
        (np.zeros((1, 2)), {}, "1 normal rows"),
        (np.zeros((5, 2)), {"normal": np.zeros(5, bool)}, "0 normal rows"),
        (np.zeros((5, 2)), {"normal": np.ones(4, bool)}, "bool for each of 5"),
        # Rows by number would be taken for true and false.
        (np.zeros((5, 2)), {"normal": np.arange(5)}, "bool for each of 5"),
    ],
)
def test_what_cannot_be_scored_is_refused_in_one_line(name, features, options, message):
    with pytest.raises(types.UsageError, match=message) as refusal:
        SCORES[name](features, **options)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: anomaly.knn_distance(np.zeros((5, 2)), 5), "ask for 1 to 4"),
        (lambda: anomaly.knn_distance(np.zeros((5, 2)), 0), "ask for 1 to 4"),
        (lambda: anomaly.mahalanobis(np.zeros((5, 2)), shrinkage=1.5), "shrinkage=1.5"),
        (lambda: anomaly.isolation_forest(np.zeros((5, 2)), trees=0), "0 trees"),
        (lambda: anomaly.auroc([1.0, 2.0], [True, True]), "2 odd and 0 other"),
        (lambda: anomaly.auroc([1.0, 2.0], [False, False]), "0 odd and 2 other"),
        (lambda: anomaly.auroc([1.0, np.nan], [True, False]), "no numbers"),
        (lambda: anomaly.auroc([1.0], [True, False]), "one score for each"),
    ],
)
def test_options_out_of_range_are_refused(call, message):
    with pytest.raises(types.UsageError, match=message):
        call()
