"""k-means: the centres that leave the least squared distance between features and their nearest centre."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax import rng, types

_SCORES_AT_ONCE = 2**23
_ROWS_AT_ONCE = 2048
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
    mean, variance = _moments(data)
    # A centred copy where memory allows, else every chunk is centred as it is visited.
    shift = None if data.size <= _CENTRED_AT_MOST else mean
    if shift is None:
        data = _centred(data, mean)
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
            labels, inertia = _nearest(data, shift, jnp.asarray(each))
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
    return np.asarray(_nearest(jax.device_put(features), shift, centers - shift)[0])


def _first_centers(data, shift, draws):
    """float32 [s, k, d], around `shift`, by greedy k-means++ from numbers in [0, 1) `draws` [s, k, t]."""
    rows = len(data)
    starts, clusters, trials = draws.shape
    candidates = np.repeat((draws[:, 0, :1] * rows).astype(np.int32), trials, axis=1)
    picked, nearest = _picked(data, shift, candidates, jnp.full((starts, rows), jnp.inf))
    picks = [np.asarray(picked)]
    for step in range(1, clusters):
        # Summed in float64: float32 would never pick the late ones of a million rows.
        reached = np.cumsum(np.asarray(nearest), axis=1, dtype=np.float64)
        candidates = np.stack(
            [np.searchsorted(one, draw * one[-1], "right") for one, draw in zip(reached, draws[:, step], strict=True)]
        )
        picked, nearest = _picked(data, shift, np.minimum(candidates, rows - 1).astype(np.int32), nearest)
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
        if len(running) <= third < len(batch) and len(data) > _ROWS_AT_ONCE:
            kept = np.asarray(running + [running[0]] * (third - len(running)))
            # Copies fill the batch up.
            batch, labels = batch[kept], labels[kept]
        if len(centers) == 1 and counts[0]:
            whole, labels, changed = _mended(data, shift, centers, labels, whole)
        else:
            sums, sizes, labels, changed = _move(data, shift, centers[batch], labels)
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
    found, changed = _relabelled(data, shift, centers, labels)
    rows = np.flatnonzero(np.asarray(changed))
    if len(rows) > _FEW * len(data):
        sums, sizes, found, _ = _move(data, shift, centers, labels)
        return (np.array(sums, np.float64), np.array(sizes, np.float64)), found, np.array([True])
    sums, sizes = whole
    if len(rows):
        # Filled up to a power of two, each a program to compile, with copies that count nothing.
        filled = np.zeros(1 << int(len(rows) - 1).bit_length(), np.int32)
        filled[: len(rows)] = rows
        more, moved = _difference(data, shift, filled, len(rows), labels, found, centers.shape[1])
        sums, sizes = sums + np.asarray(more, np.float64), sizes + np.asarray(moved, np.float64)
    return (sums, sizes), found, np.array([len(rows) > 0])


@jax.jit
def _relabelled(data, shift, centers, labels):
    """The nearest of one start's `centers` [1, k, d] to each row, [1, n], and which rows have another than before."""
    lengths = jnp.sum(centers[0] ** 2, axis=1)

    def visit(found, chunk, start, fresh):
        nearest = jnp.argmin(lengths[:, None] - 2 * _matmul(centers[0], chunk.T), axis=0).astype(jnp.int32)
        return jax.lax.dynamic_update_slice_in_dim(found, nearest[None], start, 1)

    found = _over_chunks(data, shift, centers.shape[1], visit, labels)
    return found, found[0] != labels[0]


@functools.partial(jax.jit, static_argnames="clusters")
def _difference(data, shift, rows, count, before, after, clusters):
    """What the first `count` of `rows` add to the sums [1, k, d] and sizes [1, k] as they change their clusters."""
    numbers, counted = jnp.arange(clusters), (jnp.arange(len(rows)) < count).astype(jnp.float32)
    came, left = ((labels[0][rows][None] == numbers[:, None]).astype(jnp.float32) for labels in (after, before))
    change = (came - left) * counted[None]
    return _matmul(change, _less(data[rows], shift))[None], jnp.sum(change, axis=1)[None]


def _fill_empty(data, shift, centers, labels, sums, sizes):
    """Gives empty clusters the rows farthest from their centres, in `sums` and `sizes` themselves."""
    empty = np.flatnonzero(sizes == 0)
    distances = _to_own(data, shift, centers, labels)
    if not float(jnp.max(distances)) > 0:
        return
    _, farthest = jax.lax.top_k(distances, len(empty))
    moved, labels = np.asarray(_less(data[farthest], shift)), np.asarray(labels[farthest])
    for cluster, row, left in zip(empty, moved, labels, strict=True):
        sums[left] -= row
        sums[cluster] = row
        sizes[left] -= 1
        sizes[cluster] = 1


@jax.jit
def _moments(data):
    """The mean [d], from which everything is measured so that a common offset costs no digits; the mean variance."""

    def add(power):
        def visit(total, chunk, start, fresh):
            return total + jnp.sum(jnp.where(fresh[:, None], chunk**power, 0.0), axis=0)

        return visit

    empty, scale = jnp.zeros(data.shape[1]), 1 / len(data)
    shift = data[0] + scale * _over_chunks(data, data[0], 1, add(1), empty)
    return shift, jnp.mean(scale * _over_chunks(data, shift, 1, add(2), empty))


@jax.jit
def _picked(data, shift, candidates, nearest):
    """Of the rows `candidates` [s, t] those that as further centres leave least: [s, d]; and what they leave.

    That is, as is `nearest`, each row's squared distance to the nearest centre, [s, n].
    """
    centers = _less(data[candidates.reshape(-1)], shift).reshape(*candidates.shape, -1)
    starts, trials, width = centers.shape
    lengths = jnp.sum(centers**2, axis=-1)

    def visit(carry, chunk, start, fresh):
        left, kept = carry
        products = _matmul(centers.reshape(-1, width), chunk.T).reshape(starts, trials, -1)
        squared = jnp.sum(chunk**2, axis=1)[None, None] - 2 * products + lengths[:, :, None]
        before = jax.lax.dynamic_slice_in_dim(nearest, start, len(chunk), 1)[:, None]
        squared = jnp.minimum(jnp.maximum(squared, 0.0), before)
        left += jnp.sum(jnp.where(fresh[None, None], squared, 0.0), axis=2)
        return left, jax.lax.dynamic_update_slice_in_dim(kept, squared, start, 2)

    empty = jnp.zeros((starts, trials)), jnp.zeros((starts, trials, len(data)))
    left, kept = _over_chunks(data, shift, starts * trials, visit, empty)
    best = jnp.arange(starts), jnp.argmin(left, axis=1)
    return centers[best], kept[best]


@jax.jit
def _move(data, shift, centers, labels):
    """Sums [s, k, d] and sizes [s, k] of the clusters of `centers`, the labels [s, n], whether any label is new [s]."""
    starts, clusters, width = centers.shape
    flat = centers.reshape(-1, width)
    lengths = jnp.sum(flat**2, axis=1)

    def visit(carry, chunk, start, fresh):
        sums, sizes, found, changed = carry
        scores = (lengths[:, None] - 2 * _matmul(flat, chunk.T)).reshape(starts, clusters, -1)
        nearest = jnp.argmin(scores, axis=1).astype(jnp.int32)
        members = (nearest[:, None] == jnp.arange(clusters)[None, :, None]) & fresh[None, None]
        members = members.astype(jnp.float32)
        sums += _matmul(members.reshape(starts * clusters, -1), chunk).reshape(sums.shape)
        sizes += jnp.sum(members, axis=2)
        changed |= jnp.any(nearest != jax.lax.dynamic_slice_in_dim(labels, start, len(chunk), 1), axis=1)
        return sums, sizes, jax.lax.dynamic_update_slice_in_dim(found, nearest, start, 1), changed

    empty = jnp.zeros_like(centers), jnp.zeros((starts, clusters)), labels, jnp.zeros(starts, bool)
    return _over_chunks(data, shift, starts * clusters, visit, empty)


@jax.jit
def _nearest(data, shift, centers):
    """Labels [n] and the inertia, from differences: products would lose tight clusters far from the mean."""
    lengths = jnp.sum(centers**2, axis=1)

    def visit(carry, chunk, start, fresh):
        found, inertia = carry
        nearest = jnp.argmin(lengths[:, None] - 2 * _matmul(centers, chunk.T), axis=0).astype(jnp.int32)
        squared = jnp.sum((chunk - centers[nearest]) ** 2, axis=1)
        inertia += jnp.sum(jnp.where(fresh, squared, 0.0))
        return jax.lax.dynamic_update_slice_in_dim(found, nearest, start, 0), inertia

    empty = jnp.zeros(len(data), jnp.int32), jnp.float32(0)
    return _over_chunks(data, shift, len(centers), visit, empty)


@jax.jit
def _to_own(data, shift, centers, labels):
    """The squared distance [n] of each row to the centre that it is labelled with."""

    def visit(found, chunk, start, fresh):
        own = centers[jax.lax.dynamic_slice_in_dim(labels, start, len(chunk))]
        return jax.lax.dynamic_update_slice_in_dim(found, jnp.sum((chunk - own) ** 2, axis=1), start, 0)

    return _over_chunks(data, shift, 1, visit, jnp.zeros(len(data)))


def _over_chunks(data, shift, scores, visit, carry):
    """`visit(carry, chunk - shift, first row, which rows no chunk had before)` over all rows, `scores` numbers a row.

    The last chunk reaches back over rows that were seen, so that all have one size and no row is made up.
    """
    rows = len(data)
    at_once = max(1, min(rows, _SCORES_AT_ONCE // scores))
    if shift is not None:
        # A centred chunk is a copy, best kept near the processor.
        at_once = min(at_once, _ROWS_AT_ONCE)
    if at_once == rows:
        return visit(carry, _less(data, shift), 0, jnp.ones(rows, bool))

    def advance(number, carry):
        start = jnp.minimum(number * at_once, rows - at_once)
        chunk = jax.lax.dynamic_slice_in_dim(data, start, at_once)
        chunk = _less(chunk, shift)
        return visit(carry, chunk, start, start + jnp.arange(at_once) >= number * at_once)

    return jax.lax.fori_loop(0, -(-rows // at_once), advance, carry)


def _less(rows, shift):
    return rows if shift is None else rows - shift[None]


@jax.jit
def _centred(data, mean):
    return data - mean[None]


def _checked(features):
    features = np.asarray(features, np.float32)
    if features.ndim != 2 or not features.size:
        raise types.UsageError(f"k-means of features of shape {features.shape}: give [n, d], n and d 1 or more")
    if not np.isfinite(features).all():
        raise types.UsageError("k-means of features with infinities or no numbers: look for a run that diverged")
    return features


# The default precision on accelerators has ten bits.
_matmul = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
