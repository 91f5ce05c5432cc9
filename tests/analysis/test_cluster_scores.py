import numpy as np
import pytest
from sklearn import metrics

from ssl_jax import types
from ssl_jax.analysis import cluster_scores


def clusters(rows=300, width=9, count=4, offset=0.0, seed=0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, count, rows)
    features = random.standard_normal((count, width))[labels] + 0.7 * random.standard_normal((rows, width)) + offset
    # Any numbers will do for names.
    return features.astype(np.float32), 10 * labels - 7


@pytest.mark.parametrize("offset", [0.0, 100.0], ids=["around_zero", "far_off"])
@pytest.mark.parametrize("rows, at_once", [(300, 2048), (301, 64), (128, 64)], ids=["one", "uneven", "even"])
def test_scores_of_features_equal_scikit_learn(rows, at_once, offset, monkeypatch):
    monkeypatch.setattr(cluster_scores, "_ROWS_AT_ONCE", at_once)
    features, labels = clusters(rows, offset=offset)
    exact = features.astype(np.float64)
    found = cluster_scores.silhouette_samples(features, labels)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, metrics.silhouette_samples(exact, labels), atol=1e-4)
    assert cluster_scores.silhouette(features, labels) == pytest.approx(
        metrics.silhouette_score(exact, labels), abs=1e-4
    )
    for ours, theirs in [
        (cluster_scores.davies_bouldin, metrics.davies_bouldin_score),
        (cluster_scores.calinski_harabasz, metrics.calinski_harabasz_score),
    ]:
        assert ours(features, labels) == pytest.approx(theirs(exact, labels), rel=1e-4)


def test_many_clusters_go_by_stripes_to_the_same_scores(monkeypatch):
    features, labels = clusters(rows=203, count=40)
    whole = cluster_scores.silhouette_samples(features, labels)
    monkeypatch.setattr(cluster_scores, "_SUMS_AT_ONCE", 40 * 30)
    np.testing.assert_allclose(cluster_scores.silhouette_samples(features, labels), whole, atol=1e-6)


def test_the_silhouette_of_four_points_on_a_line():
    # 0 and 1 beside 5 and 7: for the first a = 1 and b = 6.
    features = np.array([[0.0], [1.0], [5.0], [7.0]])
    found = cluster_scores.silhouette_samples(features, [0, 0, 1, 1])
    np.testing.assert_allclose(found, [5 / 6, 4 / 5, (4.5 - 2) / 4.5, (6.5 - 2) / 6.5], atol=1e-6)
    # A row alone in its cluster scores 0.
    assert cluster_scores.silhouette_samples(features, [0, 0, 0, 1])[3] == 0


def test_equal_rows_are_at_no_distance_though_far_from_the_mean():
    features = np.repeat(np.random.default_rng(0).standard_normal((6, 40)), 20, axis=0)
    np.testing.assert_array_equal(cluster_scores.silhouette_samples(features, np.repeat(np.arange(6), 20)), 1.0)
    same = np.full((6, 3), 0.1)
    np.testing.assert_array_equal(cluster_scores.silhouette_samples(same, [0, 0, 0, 1, 1, 1]), 0.0)
    assert cluster_scores.davies_bouldin(same, [0, 0, 0, 1, 1, 1]) == 0.0
    assert cluster_scores.calinski_harabasz(same, [0, 0, 0, 1, 1, 1]) == 1.0


@pytest.mark.parametrize("kinds", [(5, 5), (3, 9), (1, 1), (1, 4), (120, 120)])
def test_agreement_equals_scikit_learn(kinds):
    random = np.random.default_rng(1)
    labels, found = (random.integers(0, kind, 120) for kind in kinds)
    found = np.where(random.random(120) < 0.5, labels, found)
    for first, second in [(labels, found), (labels, (labels * 7 + 3) % 1000), (labels, random.permutation(found))]:
        for ours, theirs in [
            (cluster_scores.normalised_mutual_information, metrics.normalized_mutual_info_score),
            (cluster_scores.adjusted_rand_index, metrics.adjusted_rand_score),
        ]:
            assert ours(first, second) == pytest.approx(theirs(first, second), abs=1e-9)


def test_agreement_of_known_partitions():
    labels = [0, 0, 0, 1, 1, 2]
    renamed = [5, 5, 5, -1, -1, 3]
    for score in ("normalised_mutual_information", "adjusted_rand_index", "matched_accuracy"):
        assert getattr(cluster_scores, score)(labels, renamed) == pytest.approx(1.0)
    # Independent halves.
    assert cluster_scores.normalised_mutual_information([0, 0, 1, 1], [0, 1, 0, 1]) == 0
    assert cluster_scores.adjusted_rand_index([0, 0, 1, 1], [0, 1, 0, 1]) == pytest.approx(-0.5)
    # Greedily matched, 0 to its largest share first, it would be 3 of 6: the best is 2 + 2.
    assert cluster_scores.matched_accuracy([0, 0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 0, 0, 0]) == pytest.approx(5 / 8)
    assert cluster_scores.matched_accuracy([0, 0, 0, 0], [0, 1, 2, 3]) == 0.25
    assert cluster_scores.adjusted_rand_index([3], [4]) == 1.0


@pytest.mark.parametrize("score", ["silhouette_samples", "silhouette", "davies_bouldin", "calinski_harabasz"])
def test_features_and_clusters_without_a_score_are_refused(score):
    work = getattr(cluster_scores, score)
    for features, labels, words in [
        (np.eye(4), [1, 1, 1, 1], "1 clusters of 4 rows: their scores need from 2 to 3 clusters"),
        (np.eye(4), [0, 1, 2, 3], "4 clusters of 4 rows"),
        (np.eye(4), [0, 1, 2], r"clusters \(3,\) of features \(4, 4\)"),
        (np.eye(4), [0, 1, np.nan, 1], "whole numbers"),
        (np.full((4, 2), np.nan), [0, 0, 1, 1], "infinities or no numbers"),
    ]:
        with pytest.raises(types.UsageError, match=words):
            work(features, np.asarray(labels))


def test_lists_that_do_not_belong_together_are_refused():
    for labels, found in [([0, 1], [0]), ([], []), ([[0]], [[0]])]:
        with pytest.raises(types.UsageError, match="give one of each for every row"):
            cluster_scores.adjusted_rand_index(labels, found)
    with pytest.raises(types.UsageError, match="whole numbers"):
        cluster_scores.matched_accuracy([0.0, np.nan], [0, 1])
