"""Nearest neighbours by cosine similarity or distance, and the two ways of voting that papers report."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax import types

_SIMILARITIES_AT_ONCE = 2**26
_DISTANCES_AT_ONCE = 2**23
_ROWS_MEASURED = 2**12
# Below this share of the squared length a squared distance from products keeps too few digits.
_CLOSE = 1e-2
_SMALLEST_NORM = 1e-12


def nearest(
    train: np.ndarray | jax.Array, queries: np.ndarray | jax.Array, k: int, *, own_rows: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The k rows of `train` most similar to each query, the most similar first, the lower index first among equals.

    Queries go through in chunks, so memory grows with the number of training rows, never with its square. A row of
    zeros has similarity 0 to everything.

    Args:
        train: float [n, d], of any length: both sides are normalised here.
        queries: float [m, d].
        k: neighbours a query, 1 to n, or to n - 1 with `own_rows`.
        own_rows: int [m], where each query itself lies in `train`, as which it is not its own neighbour; -1 where it
            does not. None: no query does.

    Returns:
        Indices int32 [m, k] into `train`, and cosine similarities float32 [m, k].

    Raises:
        UsageError: k is out of range, or `own_rows` are not [m] or not in [-1, n).
    """
    own_rows = _checked(train, queries, k, own_rows)
    train = _unit(jnp.asarray(train, jnp.float32))
    return _found(_nearest_chunk, (train,), queries, k, own_rows, _SIMILARITIES_AT_ONCE)


def euclidean(
    train: np.ndarray | jax.Array, queries: np.ndarray | jax.Array, k: int, *, own_rows: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The k rows of `train` at the least Euclidean distance from each query, the nearest first.

    Among equal distances the lower index comes first. Memory grows with the number of training rows, never with its
    square. Rows are told apart to the precision of float32 around the mean of `train`; the distances of close ones are
    then taken from their differences, so that equal rows are at exactly 0.

    Args:
        train: float [n, d], taken as float32.
        queries: float [m, d], taken as float32.
        k: neighbours a query, 1 to n, or to n - 1 with `own_rows`.
        own_rows: as for `nearest`.

    Returns:
        Indices int32 [m, k] into `train`, and distances float32 [m, k].

    Raises:
        UsageError: as `nearest`, and for features that are not finite.
    """
    own_rows = _checked(train, queries, k, own_rows)
    train, queries = np.asarray(train, np.float32), np.asarray(queries, np.float32)
    if not (np.isfinite(train).all() and np.isfinite(queries).all()):
        raise types.UsageError("neighbours of infinities or no numbers: look for a run that diverged")
    shift = np.mean(train, axis=0, dtype=np.float64).astype(np.float32)
    around = jax.device_put(train) - shift[None]
    lengths = jnp.sum(around**2, axis=1)
    parts = (around, lengths, shift)
    indices, distances = _found(_euclidean_chunk, parts, queries, k, own_rows, _DISTANCES_AT_ONCE)
    bound = _CLOSE * np.asarray(lengths)
    for first in range(0, len(queries), _ROWS_MEASURED):
        rows = slice(first, first + _ROWS_MEASURED)
        places, columns = np.nonzero(distances[rows] < bound[indices[rows]])
        distances[rows] = np.sqrt(np.maximum(distances[rows], 0.0))
        for start in range(0, len(places), _ROWS_MEASURED):
            place, column = (side[start : start + _ROWS_MEASURED] for side in (first + places, columns))
            apart = queries[place].astype(np.float64) - train[indices[place, column]]
            distances[place, column] = np.linalg.norm(apart, axis=1)
        if len(places):
            order = np.lexsort((indices[rows], distances[rows]))
            indices[rows] = np.take_along_axis(indices[rows], order, axis=1)
            distances[rows] = np.take_along_axis(distances[rows], order, axis=1)
    return indices, distances


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


def _checked(train, queries, k, own_rows):
    rows, total = train.shape[0], queries.shape[0]
    most = rows if own_rows is None else rows - 1
    if not 1 <= k <= most:
        others = "" if own_rows is None else ", none its own"
        raise types.UsageError(f"{k} nearest neighbours of {rows} training examples{others}: ask for 1 to {most}")
    if own_rows is None:
        return np.full(total, -1, np.int32)
    own_rows = np.asarray(own_rows)
    if own_rows.shape != (total,) or not np.all((own_rows >= -1) & (own_rows < rows)):
        raise types.UsageError(
            f"own_rows of shape {own_rows.shape} for {total} queries: give each its row in [0, {rows}), or -1"
        )
    return own_rows.astype(np.int32)


def _found(find, train, queries, k, own_rows, at_once):
    """What `find(*train, chunk of queries, their own rows)` says of all queries: indices and values [m, k]."""
    rows, width = train[0].shape
    total = queries.shape[0]
    at_once = max(1, min(total, at_once // rows))
    indices = np.empty((total, k), np.int32)
    values = np.empty((total, k), np.float32)

    def keep(first, found):
        for side, part in zip((indices, values), found, strict=True):
            side[first : first + at_once] = np.asarray(part)[: total - first]

    begun = None
    for first in range(0, total, at_once):
        chunk = np.asarray(queries[first : first + at_once], np.float32)
        # The last chunk is filled up, so that one compiled program serves all.
        padded, own = np.zeros((at_once, width), np.float32), np.full(at_once, -1, np.int32)
        padded[: len(chunk)], own[: len(chunk)] = chunk, own_rows[first : first + at_once]
        found = find(*train, padded, own, k=k)
        # Two at a time: a chunk's k best are found on one core, while the others multiply for the next.
        if begun is not None:
            keep(*begun)
        begun = first, found
    if begun is not None:
        keep(*begun)
    return indices, values


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
def _nearest_chunk(train: jax.Array, queries: jax.Array, own: jax.Array, *, k: int) -> tuple[jax.Array, jax.Array]:
    # The default precision on accelerators has ten bits, too few to order close neighbours.
    similarities = jnp.matmul(_unit(queries), train.T, precision=jax.lax.Precision.HIGHEST)
    values, indices = jax.lax.top_k(_barred(similarities, own), k)
    return indices, values


@functools.partial(jax.jit, static_argnames="k")
def _euclidean_chunk(train, lengths, shift, queries, own, *, k):
    """Indices and squared distances [m, k]."""
    queries = queries - shift[None]
    # What is the same for all of a query's neighbours comes last: it would only cost digits before.
    nearness = 2 * jnp.matmul(queries, train.T, precision=jax.lax.Precision.HIGHEST) - lengths[None]
    values, indices = jax.lax.top_k(_barred(nearness, own), k)
    return indices, jnp.sum(queries**2, axis=1, keepdims=True) - values


def _barred(values: jax.Array, own: jax.Array) -> jax.Array:
    return jnp.where(jnp.arange(values.shape[1])[None] == own[:, None], -jnp.inf, values)


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
