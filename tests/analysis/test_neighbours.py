import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from ssl_jax import types
from ssl_jax.analysis import neighbours


def clusters(seed=0, train=300, test=90, width=8, classes=5):
    random = np.random.default_rng(seed)
    centres = random.normal(size=(classes, width))
    labels = random.integers(0, classes, train + test)
    # Lengths vary, for cosine must not see them.
    features = (centres[labels] + 1.2 * random.normal(size=(train + test, width))) * random.uniform(
        0.1, 9, (train + test, 1)
    )
    features = features.astype(np.float32)
    return features[:train], labels[:train], features[train:], labels[train:]


@pytest.mark.parametrize("k", [1, 20, 300])
@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
def test_weighted_knn_equals_scikit_learn(k, temperature):
    train, labels, queries, _ = clusters()
    reference = KNeighborsClassifier(
        k, metric="cosine", algorithm="brute", weights=lambda distances: np.exp((1 - distances) / temperature)
    ).fit(train.astype(np.float64), labels)
    ours = neighbours.weighted_knn(train, labels, queries, classes=5, k=k, temperature=temperature)
    np.testing.assert_array_equal(ours, reference.predict(queries.astype(np.float64)))


def test_temperature_decides_between_one_near_and_many_far():
    train = np.array([[1.0, 0.0], [0.6, 0.8], [0.6, -0.8]])
    labels = np.array([0, 1, 1])
    query = np.array([[2.0, 0.0]])
    assert neighbours.weighted_knn(train, labels, query, classes=2, k=3, temperature=0.1) == [0]
    assert neighbours.weighted_knn(train, labels, query, classes=2, k=3, temperature=1.0) == [1]
    # exp(1 / 0.005) overflows float32.
    assert neighbours.weighted_knn(train, labels, query, classes=2, k=3, temperature=0.005) == [0]


def test_knn_equals_scikit_learn_where_no_draw_occurs():
    train, labels, queries, _ = clusters(seed=1)
    reference = KNeighborsClassifier(10, metric="cosine", algorithm="brute").fit(train.astype(np.float64), labels)
    votes = np.sort(reference.predict_proba(queries.astype(np.float64)), axis=1)
    clear = votes[:, -1] > votes[:, -2]
    assert 40 < clear.sum() < len(clear)
    ours = neighbours.knn(train, labels, queries, classes=5, k=10)
    np.testing.assert_array_equal(ours[clear], reference.predict(queries.astype(np.float64))[clear])


def test_knn_gives_a_draw_to_the_nearer_class():
    train = np.array([[0.0, 1.0], [1.0, 0.1], [0.1, 1.0], [1.0, 0.0]])
    labels = np.array([0, 2, 0, 2])
    assert neighbours.knn(train, labels, np.array([[1.0, 0.2]]), classes=3, k=4) == [2]
    assert neighbours.knn(train, labels, np.array([[0.2, 1.0]]), classes=3, k=4) == [0]


def test_nearest_is_exact_across_chunks(monkeypatch):
    train, _, queries, _ = clusters(seed=2)
    monkeypatch.setattr(neighbours, "_SIMILARITIES_AT_ONCE", 300 * 7)
    indices, similarities = neighbours.nearest(train, queries, 4)
    cosine = (train / np.linalg.norm(train, axis=1, keepdims=True)) @ (
        queries / np.linalg.norm(queries, axis=1, keepdims=True)
    ).T
    np.testing.assert_array_equal(indices, np.argsort(-cosine, axis=0)[:4].T)
    np.testing.assert_allclose(similarities, -np.sort(-cosine, axis=0)[:4].T, atol=1e-6)


def test_votes_are_exact_across_chunks(monkeypatch):
    train, labels, queries, _ = clusters(seed=3)
    whole = neighbours.knn(train, labels, queries, classes=5, k=9)
    monkeypatch.setattr(neighbours, "_SIMILARITIES_AT_ONCE", 9 * 5 * 7)
    np.testing.assert_array_equal(neighbours.knn(train, labels, queries, classes=5, k=9), whole)


def test_a_row_of_zeros_is_similar_to_nothing():
    _, similarities = neighbours.nearest(np.array([[0.0, 0.0], [1.0, 0.0]]), np.array([[-1.0, 0.0]]), 2)
    np.testing.assert_allclose(similarities, [[0.0, -1.0]])


def test_more_neighbours_than_examples_are_refused():
    with pytest.raises(types.UsageError, match="5 nearest neighbours of 4 training examples"):
        neighbours.nearest(np.eye(4), np.eye(4), 5)
    with pytest.raises(types.UsageError, match="temperature=0"):
        neighbours.weighted_knn(np.eye(4), np.arange(4), np.eye(4), classes=4, k=2, temperature=0.0)


@pytest.mark.parametrize("offset", [0.0, 100.0], ids=["around_zero", "far_off"])
@pytest.mark.parametrize("at_once", [2**23, 300 * 7], ids=["one_chunk", "chunks"])
def test_euclidean_equals_scikit_learn(offset, at_once, monkeypatch):
    monkeypatch.setattr(neighbours, "_DISTANCES_AT_ONCE", at_once)
    train, _, queries, _ = clusters(seed=4)
    train, queries = train + np.float32(offset), queries + np.float32(offset)
    reference = NearestNeighbors(n_neighbors=9, algorithm="brute").fit(train.astype(np.float64))
    distances, indices = reference.kneighbors(queries.astype(np.float64))
    found, apart = neighbours.euclidean(train, queries, 9)
    assert found.dtype == np.int32 and apart.dtype == np.float32
    np.testing.assert_array_equal(found, indices)
    np.testing.assert_allclose(apart, distances, rtol=1e-4, atol=1e-5)


def test_a_row_is_not_its_own_neighbour_where_told():
    train, _, queries, _ = clusters(seed=5)
    both = np.concatenate([train[:50], queries[:3]])
    own_rows = np.array([*range(50), -1, -1, -1])
    for search, fewer in [(neighbours.euclidean, 0.0), (neighbours.nearest, 1.0)]:
        with_itself, value = search(train, both, 5)
        without, _ = search(train, both, 4, own_rows=own_rows)
        np.testing.assert_array_equal(with_itself[:50, 0], np.arange(50))
        np.testing.assert_allclose(value[:50, 0], fewer, atol=1e-6)
        np.testing.assert_array_equal(without[:50], with_itself[:50, 1:])
        np.testing.assert_array_equal(without[50:], with_itself[50:, :4])


def test_equal_rows_are_at_exactly_no_distance_in_order(monkeypatch):
    monkeypatch.setattr(neighbours, "_ROWS_MEASURED", 16)
    random = np.random.default_rng(6)
    train = np.tile(random.standard_normal((20, 30)).astype(np.float32), (4, 1)) + 7
    found, apart = neighbours.euclidean(train, train, 3, own_rows=np.arange(80))
    np.testing.assert_array_equal(apart, np.zeros((80, 3)))
    copies = np.arange(4) * 20
    for row in range(80):
        np.testing.assert_array_equal(found[row], [other for other in row % 20 + copies if other != row])
    np.testing.assert_array_equal(neighbours.euclidean(np.ones((5, 2)), np.ones((1, 2)), 4)[0], [[0, 1, 2, 3]])


def test_close_rows_keep_their_digits():
    # 1e-4 apart at a length of 10: products in float32 would know nothing of it.
    train = np.array([[10.0, 0.0], [10.0001, 0.0], [-10.0, 0.0]], np.float32)
    _, apart = neighbours.euclidean(train, train[:1], 2)
    np.testing.assert_allclose(apart, [[0.0, train[1, 0] - train[0, 0]]], rtol=1e-6)


def test_own_rows_and_features_that_make_no_sense_are_refused():
    with pytest.raises(
        types.UsageError, match="4 nearest neighbours of 4 training examples, none its own: ask for 1 to 3"
    ):
        neighbours.euclidean(np.eye(4), np.eye(4), 4, own_rows=np.arange(4))
    for own_rows in ([0, 1], [0, 1, 2, 4], [-2, 0, 1, 2]):
        with pytest.raises(types.UsageError, match=r"own_rows of shape .* for 4 queries"):
            neighbours.nearest(np.eye(4), np.eye(4), 2, own_rows=own_rows)
    with pytest.raises(types.UsageError, match="infinities or no numbers"):
        neighbours.euclidean(np.eye(4), np.full((1, 4), np.inf), 2)
