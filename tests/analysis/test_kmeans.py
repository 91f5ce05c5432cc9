import numpy as np
import pytest
from sklearn import cluster

from ssl_jax import types
from ssl_jax.analysis import cluster_scores, kmeans, kmeans_steps


def blobs(count=5, rows=400, width=6, deviation=0.3, offset=0.0, seed=0):
    random = np.random.default_rng(seed)
    centers = 3 * random.standard_normal((count, width))
    labels = random.integers(0, count, rows)
    features = centers[labels] + deviation * random.standard_normal((rows, width)) + offset
    return features.astype(np.float32), labels


@pytest.mark.parametrize("offset", [0.0, 100.0], ids=["around_zero", "far_off"])
@pytest.mark.parametrize(
    ("limits", "rows"),
    [({}, 401), ({"_SCORES_AT_ONCE": 7 * 150}, 405), ({"ROWS_AT_ONCE": 150}, 402)],
    ids=["one_chunk", "chunks", "chunks_centred_in_passing"],
)
def test_from_one_start_it_equals_scikit_learn(offset, limits, rows, monkeypatch):
    # Sizes that no other test has, so that the chunks are not those of a program compiled before.
    features, _ = blobs(deviation=2.5, offset=offset, rows=rows)
    for name, value in limits.items():
        monkeypatch.setattr(kmeans_steps, name, value)
    if "ROWS_AT_ONCE" in limits:
        monkeypatch.setattr(kmeans, "_CENTRED_AT_MOST", 0)
    start = features[:7]
    ours = kmeans.fit(features, 7, start=start)
    theirs = cluster.KMeans(7, init=start.astype(float), n_init=1, algorithm="lloyd").fit(features.astype(float))
    assert ours.iterations == theirs.n_iter_ > 5
    np.testing.assert_array_equal(ours.labels, theirs.labels_)
    np.testing.assert_allclose(ours.centers, theirs.cluster_centers_, atol=1e-4)
    assert ours.inertia == pytest.approx(theirs.inertia_, rel=1e-4)
    np.testing.assert_array_equal(kmeans.assign(features, ours.centers), theirs.predict(features.astype(float)))


def test_it_stops_by_tolerance_and_after_so_many_moves_as_scikit_learn():
    features, _ = blobs(deviation=2.5)
    start = features[:7]
    for settings, ours in [({"max_iter": 2}, {"iterations": 2}), ({"tol": 0.02}, {"tolerance": 0.02})]:
        theirs = cluster.KMeans(7, init=start, n_init=1, algorithm="lloyd", **settings).fit(features)
        found = kmeans.fit(features, 7, start=start, **ours)
        assert found.iterations == theirs.n_iter_ < kmeans.fit(features, 7, start=start).iterations
        np.testing.assert_array_equal(found.labels, theirs.labels_)
        np.testing.assert_allclose(found.centers, theirs.cluster_centers_, atol=1e-4)


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
@pytest.mark.parametrize("empty", [1, 2])
def test_empty_clusters_move_to_the_farthest_rows_as_in_scikit_learn(empty):
    features, _ = blobs(count=3)
    start = features[:5].copy()
    start[5 - empty :] = 1000.0
    ours = kmeans.fit(features, 5, start=start, iterations=1)
    theirs = cluster.KMeans(5, init=start, n_init=1, max_iter=1, algorithm="lloyd").fit(features)
    np.testing.assert_allclose(ours.centers, theirs.cluster_centers_, atol=1e-4)
    assert len(np.unique(kmeans.fit(features, 5, start=start).labels)) == 5


def test_the_silhouette_finds_how_many_blobs_there_are_and_the_clusters_are_the_blobs():
    features, labels = blobs()
    found = {count: kmeans.fit(features, count) for count in range(3, 8)}
    scores = {count: cluster_scores.silhouette(features, each.labels) for count, each in found.items()}
    assert max(scores, key=scores.get) == 5
    assert cluster_scores.adjusted_rand_index(labels, found[5].labels) == 1.0


def test_the_best_of_several_starts_is_kept_and_the_seed_fixes_it():
    features, _ = blobs(count=12, deviation=0.8, seed=3)
    once = kmeans.fit(features, 12, seed=5)
    again = kmeans.fit(features, 12, seed=5)
    np.testing.assert_array_equal(once.centers, again.centers)
    singles = [kmeans.fit(features, 12, seed=seed, starts=1).inertia for seed in range(6)]
    assert len({round(single, 2) for single in singles}) > 1
    assert once.inertia <= min(singles) * 1.05 and once.inertia < np.mean(singles)
    theirs = cluster.KMeans(12, n_init=10, random_state=0).fit(features)
    assert once.inertia <= 1.02 * theirs.inertia_
    # The centres are the means of their rows, and each row has the nearest.
    means = np.stack([features[once.labels == number].mean(axis=0) for number in range(12)])
    np.testing.assert_allclose(once.centers, means, atol=0.05)


def test_starts_in_groups_end_like_starts_together(monkeypatch):
    monkeypatch.setattr(kmeans_steps, "ROWS_AT_ONCE", 170)
    features, _ = blobs(deviation=2.5, rows=403)
    together = kmeans.fit(features, 6, starts=5)
    monkeypatch.setattr(kmeans, "_CENTERS_AT_ONCE", 6)
    apart = kmeans.fit(features, 6, starts=5)
    np.testing.assert_array_equal(apart.labels, together.labels)
    assert apart.iterations == together.iterations


def test_first_centres_spread_where_uniform_draws_would_not():
    # 1 row in 100 is far: a uniform draw of two centres would miss the far group nine times in ten.
    features = np.zeros((1000, 2), np.float32)
    features[:10, 0] = 50.0
    features += 0.01 * np.random.default_rng(0).standard_normal(features.shape, np.float32)
    for seed in range(5):
        found = kmeans.fit(features, 2, seed=seed, starts=1, iterations=1)
        assert sorted(np.bincount(found.labels)) == [10, 990]


def test_one_cluster_is_the_mean_and_as_many_as_rows_leave_nothing():
    features, _ = blobs(rows=30)
    one = kmeans.fit(features, 1)
    np.testing.assert_allclose(one.centers[0], features.mean(axis=0), atol=1e-5)
    assert one.inertia == pytest.approx(np.sum((features - features.mean(axis=0)) ** 2), rel=1e-4)
    every = kmeans.fit(features, 30)
    assert sorted(every.labels) == list(range(30)) and every.inertia < 1e-6
    constant = kmeans.fit(np.full((8, 3), 0.1), 1)
    assert constant.inertia == 0 and np.all(constant.centers == np.float32(0.1))


@pytest.mark.parametrize(
    "features, arguments, words",
    [
        (np.eye(3), {"clusters": 4}, "4 clusters of 3 rows: ask for 1 to 3"),
        (np.eye(3), {"clusters": 0}, "ask for 1 to 3"),
        (np.repeat(np.eye(3), 4, axis=0), {"clusters": 4}, "4 clusters of 3 distinct rows: ask for 1 to 3"),
        (np.full((5, 2), 0.1), {"clusters": 2}, "2 clusters of 1 distinct rows"),
        (np.array([[0.0], [np.nan]]), {"clusters": 1}, "infinities or no numbers"),
        (np.array([[0.0], [np.inf]]), {"clusters": 1}, "infinities or no numbers"),
        (np.zeros(5), {"clusters": 1}, r"shape \(5,\)"),
        (np.eye(3), {"clusters": 2, "start": np.eye(3)}, r"give finite ones of shape \(2, 3\)"),
        (np.eye(3), {"clusters": 2, "starts": 0}, "starts=0"),
    ],
)
def test_what_cannot_be_clustered_is_refused_in_words(features, arguments, words):
    with pytest.raises(types.UsageError, match=words):
        kmeans.fit(features, **arguments)


def test_centres_of_another_width_are_refused():
    with pytest.raises(types.UsageError, match=r"give \[k, 3\]"):
        kmeans.assign(np.eye(3), np.eye(2))
