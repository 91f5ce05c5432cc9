"""k-means: the centres that leave the least squared distance between features and their nearest centre."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax import rng, types
from ssl_jax.analysis import kmeans_steps

_CENTERS_AT_ONCE = 4096
_DISTANCES_KEPT = 2**26
_CENTRED_AT_MOST = 2**27
# Of the rows: where fewer change their cluster, the sums are mended instead of taken anew.
_FEW = 1 / 8


class KMeans(NamedTuple):
    """What `fit` found.

    Attributes:
        centers: float32 [k, d].
        labels: int32 [n], each row's nearest centre, as numbered in `centers`.
        inertia: the sum over rows of the squared distance to that centre.
        iterations: how often the centres were moved.
    """

    centers: np.ndarray
    labels: np.ndarray
    inertia: float
    iterations: int


def fit(
    features: np.ndarray | jax.Array,
    clusters: int,
    *,
    seed: int = 0,
    starts: int = 10,
    start: np.ndarray | None = None,
    iterations: int = 300,
    tolerance: float = 1e-4,
) -> KMeans:
    """Lloyd's algorithm from several k-means++ starts, all in the same products; the one of least inertia.

    From one `start` it does what scikit-learn's `KMeans(init=start, n_init=1, algorithm="lloyd")` does, stopping rule
    and empty clusters (each moved to the row farthest from its centre) included. The first centres are drawn by greedy
    k-means++: Arthur and Vassilvitskii 2007, the best of 2 + log(k) draws for each centre, as scikit-learn's.

    Args:
        features: float [n, d], taken as float32.
        clusters: k, 1 to the number of distinct rows.
        seed: of the first centres; equal ones give equal results.
        starts: how many times to begin.
        start: float [k, d], the first centres of the only start.
        iterations: the most moves of the centres.
        tolerance: a start has ended once its centres move, in squares summed over all, by at most so many mean
            variances of a channel; or once no row changes its cluster.

    Raises:
        UsageError: k out of range, features that are not [n, d] or not finite, or a start of another shape.
    """
    features = _checked(features)
    rows, width = features.shape
    if not 1 <= clusters <= rows:
        raise types.UsageError(f"{clusters} clusters of {rows} rows: ask for 1 to {rows}")
    if starts < 1 or iterations < 1:
        raise types.UsageError(f"k-means with starts={starts} and iterations={iterations}: give 1 or more of each")
    if start is not None:
        start = np.asarray(start, np.float32)
        if start.shape != (clusters, width) or not np.isfinite(start).all():
            raise types.UsageError(
                f"first centres {start.shape} of {clusters} clusters of {rows} x {width} features: "
                f"give finite ones of shape ({clusters}, {width})"
            )
    # Which takes the features' own memory where it can, unlike jnp.asarray.
    data = jax.device_put(features)
    mean, variance = kmeans_steps.moments(data)
    # Of one start's few products a centred copy is worth its memory; else every chunk is centred as it is visited.
    alone = start is not None or starts == 1
    shift = None if alone and data.size <= _CENTRED_AT_MOST else mean
    if shift is None:
        data = kmeans_steps.centred(data, mean)
    trials = 2 + int(np.log(clusters))
    if start is None:
        draws = jax.random.uniform(rng.stream(seed, "kmeans"), (starts, clusters, trials))
        draws = np.asarray(draws, np.float64)
    else:
        starts = 1
    together = max(1, min(starts, _CENTERS_AT_ONCE // clusters, _DISTANCES_KEPT // (rows * trials)))
    best = None
    for first in range(0, starts, together):
        if start is None:
            begin = _first_centers(data, shift, draws[first : first + together])
        else:
            begin = start[None] - np.asarray(mean)
        centers, counts = _lloyd(data, shift, begin, iterations, tolerance * float(variance))
        for each, count in zip(centers, counts, strict=True):
            labels, inertia = kmeans_steps.nearest(data, shift, jnp.asarray(each))
            if best is None or float(inertia) < best.inertia:
                best = KMeans(each + np.asarray(mean), np.asarray(labels), float(inertia), int(count))
    if len(np.unique(best.labels)) < clusters:
        distinct = len(np.unique(features, axis=0))
        if distinct < clusters:
            raise types.UsageError(f"{clusters} clusters of {distinct} distinct rows: ask for 1 to {distinct}")
    return best


def assign(features: np.ndarray | jax.Array, centers: np.ndarray | jax.Array) -> np.ndarray:
    """The nearest of `centers` [k, d] to each row of `features` [n, d]: int32 [n], the lower one among equals.

    Raises:
        UsageError: features that are not [n, d] or not finite, or centres of another width.
    """
    features, centers = _checked(features), np.asarray(centers, np.float32)
    if centers.ndim != 2 or not len(centers) or centers.shape[1] != features.shape[1]:
        raise types.UsageError(
            f"centres of shape {centers.shape} for features {features.shape}: give [k, {features.shape[1]}]"
        )
    shift = centers.mean(axis=0)
    return np.asarray(kmeans_steps.nearest(jax.device_put(features), shift, centers - shift)[0])


def _first_centers(data, shift, draws):
    """float32 [s, k, d], around `shift`, by greedy k-means++ from numbers in [0, 1) `draws` [s, k, t]."""
    rows = len(data)
    starts, clusters, trials = draws.shape
    candidates = np.repeat((draws[:, 0, :1] * rows).astype(np.int32), trials, axis=1)
    picked, nearest = kmeans_steps.picked(data, shift, candidates, jnp.full((starts, rows), jnp.inf))
    picks = [np.asarray(picked)]
    for step in range(1, clusters):
        # Summed in float64: float32 would never pick the late ones of a million rows.
        reached = np.cumsum(np.asarray(nearest), axis=1, dtype=np.float64)
        candidates = np.stack(
            [np.searchsorted(one, draw * one[-1], "right") for one, draw in zip(reached, draws[:, step], strict=True)]
        )
        picked, nearest = kmeans_steps.picked(data, shift, np.minimum(candidates, rows - 1).astype(np.int32), nearest)
        picks.append(np.asarray(picked))
    return np.stack(picks, axis=1)


def _lloyd(data, shift, centers, iterations, tolerance):
    """The last centres float32 [s, k, d] of every start, around `shift`, and after how many moves."""
    centers = centers.astype(np.float32)
    counts = np.zeros(len(centers), int)
    # The starts in the products; those that have ended leave when two thirds have, as each number is a program to
    # compile, and never where a chunk holds all rows.
    batch = np.arange(len(centers))
    labels = jnp.full((len(batch), len(data)), -1, jnp.int32)
    ended = np.zeros(len(centers), bool)
    whole = None
    while True:
        running = [place for place, number in enumerate(batch) if not ended[number]]
        if not running:
            return centers, counts
        third = -(-len(batch) // 3)
        if len(running) <= third < len(batch) and len(data) > kmeans_steps.ROWS_AT_ONCE:
            kept = np.asarray(running + [running[0]] * (third - len(running)))
            # Copies fill the batch up.
            batch, labels = batch[kept], labels[kept]
        if len(centers) == 1 and counts[0]:
            whole, labels, changed = _mended(data, shift, centers, labels, whole)
        else:
            sums, sizes, labels, changed = kmeans_steps.move(data, shift, centers[batch], labels)
            whole, changed = (np.array(sums, np.float64), np.array(sizes, np.float64)), np.asarray(changed)
        sums, sizes = (array.copy() for array in whole)
        for number, place in {number: place for place, number in enumerate(batch)}.items():
            if ended[number]:
                continue
            if not sizes[place].all():
                _fill_empty(data, shift, centers[number], labels[place], sums[place], sizes[place])
            moved = sums[place] / np.maximum(sizes[place], 1)[:, None]
            moved[sizes[place] == 0] = moved[np.argmax(sizes[place])]
            counts[number] += 1
            small = np.sum((moved - centers[number]) ** 2) <= tolerance
            centers[number] = moved
            ended[number] = small or not changed[place] or counts[number] == iterations


def _mended(data, shift, centers, labels, whole):
    """What `_move` tells of a single start whose sums and sizes, `whole`, were those of `labels`."""
    found, changed = kmeans_steps.relabelled(data, shift, centers, labels)
    rows = np.flatnonzero(np.asarray(changed))
    if len(rows) > _FEW * len(data):
        sums, sizes, found, _ = kmeans_steps.move(data, shift, centers, labels)
        return (np.array(sums, np.float64), np.array(sizes, np.float64)), found, np.array([True])
    sums, sizes = whole
    if len(rows):
        # Filled up to a power of two, each a program to compile, with copies that count nothing.
        filled = np.zeros(1 << int(len(rows) - 1).bit_length(), np.int32)
        filled[: len(rows)] = rows
        more, moved = kmeans_steps.difference(data, shift, filled, len(rows), labels, found, centers.shape[1])
        sums, sizes = sums + np.asarray(more, np.float64), sizes + np.asarray(moved, np.float64)
    return (sums, sizes), found, np.array([len(rows) > 0])


def _fill_empty(data, shift, centers, labels, sums, sizes):
    """Gives empty clusters the rows farthest from their centres, in `sums` and `sizes` themselves."""
    empty = np.flatnonzero(sizes == 0)
    distances = kmeans_steps.to_own(data, shift, centers, labels)
    if not float(jnp.max(distances)) > 0:
        return
    _, farthest = jax.lax.top_k(distances, len(empty))
    moved, labels = np.asarray(kmeans_steps.less(data[farthest], shift)), np.asarray(labels[farthest])
    for cluster, row, left in zip(empty, moved, labels, strict=True):
        sums[left] -= row
        sums[cluster] = row
        sizes[left] -= 1
        sizes[cluster] = 1


def _checked(features):
    features = np.asarray(features, np.float32)
    if features.ndim != 2 or not features.size:
        raise types.UsageError(f"k-means of features of shape {features.shape}: give [n, d], n and d 1 or more")
    if not np.isfinite(features).all():
        raise types.UsageError("k-means of features with infinities or no numbers: look for a run that diverged")
    return features
