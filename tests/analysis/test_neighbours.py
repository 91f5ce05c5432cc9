import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

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
