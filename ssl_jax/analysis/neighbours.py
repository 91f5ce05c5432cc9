"""Nearest neighbours by cosine similarity, and the two ways of voting that papers report."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax import types

_SIMILARITIES_AT_ONCE = 2**26
_SMALLEST_NORM = 1e-12


def nearest(train: np.ndarray | jax.Array, queries: np.ndarray | jax.Array, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k rows of `train` most similar to each query, the most similar first, the lower index first among equals.

    Queries go through in chunks, so memory grows with the number of training rows, never with its square. A row of
    zeros has similarity 0 to everything.

    Args:
        train: float [n, d], of any length: both sides are normalised here.
        queries: float [m, d].
        k: neighbours a query, 1 to n.

    Returns:
        Indices int32 [m, k] into `train`, and cosine similarities float32 [m, k].

    Raises:
        UsageError: k is not within 1 to n.
    """
    rows, width = train.shape
    if not 1 <= k <= rows:
        raise types.UsageError(f"{k} nearest neighbours of {rows} training examples: ask for 1 to {rows}")
    train = _unit(jnp.asarray(train, jnp.float32))
    total = queries.shape[0]
    at_once = max(1, min(total, _SIMILARITIES_AT_ONCE // rows))
    indices = np.empty((total, k), np.int32)
    similarities = np.empty((total, k), np.float32)
    for first in range(0, total, at_once):
        chunk = np.asarray(queries[first : first + at_once], np.float32)
        # The last chunk is filled up, so that one compiled program serves all.
        padded = np.zeros((at_once, width), np.float32)
        padded[: len(chunk)] = chunk
        found, similar = _nearest_chunk(train, padded, k=k)
        indices[first : first + at_once] = np.asarray(found)[: len(chunk)]
        similarities[first : first + at_once] = np.asarray(similar)[: len(chunk)]
    return indices, similarities


def weighted_knn(
    train_features: np.ndarray | jax.Array,
    train_labels: np.ndarray | jax.Array,
    queries: np.ndarray | jax.Array,
    *,
    classes: int,
    k: int,
    temperature: float,
) -> np.ndarray:
    """The class whose neighbours weigh most, each of the k nearest weighing exp(similarity / temperature).

    The protocol of Wu et al. 2018 (arXiv 1805.01978, section 3.4) that SimSiam's kNN monitor and lightly use with
    k = 200; they print temperatures 0.07 and 0.1.

    Args:
        train_features: float [n, d].
        train_labels: int [n], in [0, classes).
        queries: float [m, d].
        classes: the number of classes.
        k: neighbours a query, 1 to n.
        temperature: above 0; the smaller, the more the very nearest decide.

    Returns:
        Classes int32 [m], the lower one among equals.

    Raises:
        UsageError: k is not within 1 to n, or the temperature is not above 0.
    """
    if not temperature > 0:
        raise types.UsageError(f"temperature={temperature}: the weights exp(similarity / temperature) want one above 0")
    indices, similarities = nearest(train_features, queries, k)
    return weighted_vote(np.asarray(train_labels)[indices], similarities, classes=classes, temperature=temperature)


def knn(
    train_features: np.ndarray | jax.Array,
    train_labels: np.ndarray | jax.Array,
    queries: np.ndarray | jax.Array,
    *,
    classes: int,
    k: int,
) -> np.ndarray:
    """The class of most of the k nearest by cosine; among equal counts, the one of larger summed similarity.

    scikit-learn's `KNeighborsClassifier(k, metric="cosine")` counts alike, yet settles a draw by the lower class.

    Args:
        train_features: float [n, d].
        train_labels: int [n], in [0, classes).
        queries: float [m, d].
        classes: the number of classes.
        k: neighbours a query, 1 to n.

    Returns:
        Classes int32 [m].

    Raises:
        UsageError: k is not within 1 to n.
    """
    indices, similarities = nearest(train_features, queries, k)
    return majority_vote(np.asarray(train_labels)[indices], similarities, classes=classes)


def weighted_vote(labels: np.ndarray, similarities: np.ndarray, *, classes: int, temperature: float) -> np.ndarray:
    """The vote of `weighted_knn` on neighbours already found: labels and similarities [m, k] to classes int32 [m]."""
    return _chunked(functools.partial(_weighted, temperature=temperature), labels, similarities, classes)


def majority_vote(labels: np.ndarray, similarities: np.ndarray, *, classes: int) -> np.ndarray:
    """The vote of `knn` on neighbours already found: labels and similarities [m, k] to classes int32 [m]."""
    return _chunked(_majority, labels, similarities, classes)


def _chunked(vote, labels, similarities, classes):
    at_once = max(1, _SIMILARITIES_AT_ONCE // (labels.shape[1] * classes))
    parts = [
        np.asarray(vote(labels[first : first + at_once], similarities[first : first + at_once], classes=classes))
        for first in range(0, len(labels), at_once)
    ]
    return np.concatenate(parts)


def _unit(features: jax.Array) -> jax.Array:
    return features / jnp.maximum(jnp.linalg.norm(features, axis=-1, keepdims=True), _SMALLEST_NORM)


@functools.partial(jax.jit, static_argnames="k")
def _nearest_chunk(train: jax.Array, queries: jax.Array, *, k: int) -> tuple[jax.Array, jax.Array]:
    # The default precision on accelerators has ten bits, too few to order close neighbours.
    similarities = jnp.matmul(_unit(queries), train.T, precision=jax.lax.Precision.HIGHEST)
    values, indices = jax.lax.top_k(similarities, k)
    return indices, values


@functools.partial(jax.jit, static_argnames="classes")
def _weighted(labels: jax.Array, similarities: jax.Array, *, classes: int, temperature: float) -> jax.Array:
    # Relative to the nearest: the same winner, and no overflow however small the temperature.
    weights = jnp.exp((similarities - similarities[:, :1]) / temperature)
    chosen = labels[:, :, None] == jnp.arange(classes)[None, None, :]
    return jnp.argmax(jnp.sum(jnp.where(chosen, weights[:, :, None], 0.0), axis=1), axis=-1).astype(jnp.int32)


@functools.partial(jax.jit, static_argnames="classes")
def _majority(labels: jax.Array, similarities: jax.Array, *, classes: int) -> jax.Array:
    chosen = labels[:, :, None] == jnp.arange(classes)[None, None, :]
    counts = jnp.sum(chosen, axis=1)
    summed = jnp.sum(jnp.where(chosen, similarities[:, :, None], 0.0), axis=1)
    first = counts == jnp.max(counts, axis=-1, keepdims=True)
    return jnp.argmax(jnp.where(first, summed, -jnp.inf), axis=-1).astype(jnp.int32)
