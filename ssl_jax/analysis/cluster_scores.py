"""How well clusters are apart, from the features alone, and how well they agree with labels."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize

from ssl_jax import types

_ROWS_AT_ONCE = 2048
_SUMS_AT_ONCE = 2**26
# Rounding of a squared distance from products, as a share of the squared lengths: below it two rows are equal.
_ROUNDING = 1e-6


def silhouette_samples(features: np.ndarray | jax.Array, labels: np.ndarray) -> np.ndarray:
    """How much nearer each row is to its own cluster than to the next: (b - a) / max(a, b), exact over all pairs.

    a is the mean Euclidean distance to the other rows of the cluster, b the least mean distance to those of another
    (Rousseeuw 1987); scikit-learn's `silhouette_samples`. Distances are in float32, from the mean of all features, and
    those below 1e-3 of the rows' lengths from there count as 0. Memory holds, beside the features, one number a row
    and cluster, and 2,048 x 2,048 distances; each pair of rows is measured once.

    Args:
        features: float [n, d], taken as float32.
        labels: int [n], any numbers.

    Returns:
        float32 [n], in [-1, 1]; 0 for a row alone in its cluster.

    Raises:
        UsageError: fewer than 2 clusters or as many as rows, features that are not [n, d] or not finite, or a label
            missing.
    """
    features, groups, count = _checked(features, labels)
    rows = len(features)
    data = jax.device_put(features)
    groups, sizes = jnp.asarray(groups), np.bincount(groups, minlength=count)
    shift = _mean(features)
    at_once = max(1, min(rows, _ROWS_AT_ONCE, _SUMS_AT_ONCE // count))
    stripes = range(-(-rows // at_once))
    found = np.empty(rows, np.float32)
    if rows * count <= _SUMS_AT_ONCE:
        sums = jnp.zeros((rows, count))
        for stripe in stripes:
            sums = _add_stripe(sums, data, shift, groups, stripe, at_once)
        return _silhouettes(np.asarray(sums), np.asarray(groups), sizes)
    # Both triangles, a stripe at a time: so many clusters that the sums of all rows take more room than features do.
    for stripe in stripes:
        start = min(stripe * at_once, rows - at_once)
        here = slice(start, start + at_once)
        sums = _whole_stripe(data, shift, groups, start, at_once, count)
        found[here] = _silhouettes(np.asarray(sums), np.asarray(groups[here]), sizes)
    return found


def silhouette(features: np.ndarray | jax.Array, labels: np.ndarray) -> float:
    """The mean of `silhouette_samples`, in [-1, 1]: 1 for tight clusters far apart, about 0 where they overlap."""
    return float(np.mean(silhouette_samples(features, labels), dtype=np.float64))


def davies_bouldin(features: np.ndarray | jax.Array, labels: np.ndarray) -> float:
    """The mean over clusters of (s_i + s_j) / d_ij with the cluster j that makes it largest; smaller is better.

    s is the mean distance of a cluster's rows to their mean, d the distance between two means (Davies and Bouldin
    1979); scikit-learn's `davies_bouldin_score`, which is 0 where all s or all d are.

    Args:
        features: float [n, d].
        labels: int [n], any numbers.

    Raises:
        UsageError: as `silhouette_samples`.
    """
    means, _, lengths, _ = _scatter(features, labels)
    apart = np.stack([np.linalg.norm(means - mean, axis=1) for mean in means])
    if np.allclose(lengths, 0) or np.allclose(apart, 0):
        return 0.0
    apart[apart == 0] = np.inf
    return float(np.mean(np.max((lengths[:, None] + lengths[None, :]) / apart, axis=1)))


def calinski_harabasz(features: np.ndarray | jax.Array, labels: np.ndarray) -> float:
    """The variance between clusters over that within, each over its degrees of freedom; larger is better.

    Calinski and Harabasz 1974; scikit-learn's `calinski_harabasz_score`, which is 1 where no cluster has any variance.

    Args:
        features: float [n, d].
        labels: int [n], any numbers.

    Raises:
        UsageError: as `silhouette_samples`.
    """
    means, sizes, _, squares = _scatter(features, labels)
    rows, count = sizes.sum(), len(sizes)
    between = np.sum(sizes[:, None] * (means - sizes @ means / rows) ** 2)
    return float(between * (rows - count) / (squares * (count - 1))) if squares > 0 else 1.0


def normalised_mutual_information(labels: np.ndarray, clusters: np.ndarray) -> float:
    """What clusters tell of labels, over the mean of both entropies: 1 for the same partition, 0 for unrelated ones.

    scikit-learn's `normalized_mutual_info_score` (arithmetic mean). It is not corrected for chance: many clusters of
    few rows score above 0.

    Args:
        labels: int [n], any numbers.
        clusters: int [n], any numbers.

    Raises:
        UsageError: lists of different length, or of none.
    """
    joint, of_labels, of_clusters = _shares(labels, clusters)
    if len(of_labels) == len(of_clusters) == 1:
        return 1.0
    entropies = [-np.sum(shares * np.log(shares)) for shares in (of_labels, of_clusters)]
    rows, columns, shares = joint
    mutual = np.sum(shares * (np.log(shares) - np.log(of_labels[rows]) - np.log(of_clusters[columns])))
    return float(np.clip(mutual / np.mean(entropies), 0.0, 1.0)) if mutual > np.finfo(np.float64).eps else 0.0


def adjusted_rand_index(labels: np.ndarray, clusters: np.ndarray) -> float:
    """How often two partitions agree on a pair of rows, less what chance gives: 1 for the same, about 0 for unrelated.

    Hubert and Arabie 1985; scikit-learn's `adjusted_rand_score`.

    Args:
        labels: int [n], any numbers.
        clusters: int [n], any numbers.

    Raises:
        UsageError: lists of different length, or of none.
    """
    joint, of_labels, of_clusters = _shares(labels, clusters)
    rows = np.size(labels)
    together, in_labels, in_clusters = (
        float(np.sum(np.rint(shares * rows) * (np.rint(shares * rows) - 1)))
        for shares in (joint[2], of_labels, of_clusters)
    )
    expected = in_labels * in_clusters / max(rows * (rows - 1), 1)
    most = (in_labels + in_clusters) / 2
    return 1.0 if together == in_labels == in_clusters else float((together - expected) / (most - expected))


def matched_accuracy(labels: np.ndarray, clusters: np.ndarray) -> float:
    """The share of rows whose cluster is their label's, under the best one-to-one matching of the two.

    "Clustering accuracy" (Yang et al. 2010; Xie et al. 2016), by the Hungarian method. Clusters without a label of
    their own count as wrong, and so do labels without a cluster.

    Args:
        labels: int [n], any numbers.
        clusters: int [n], any numbers.

    Raises:
        UsageError: lists of different length, or of none.
    """
    (rows, columns, shares), of_labels, of_clusters = _shares(labels, clusters)
    table = np.zeros((len(of_labels), len(of_clusters)))
    table[rows, columns] = shares
    return float(table[optimize.linear_sum_assignment(table, maximize=True)].sum())


def _shares(labels, clusters):
    """Shares of rows: (labels, clusters, shares) of those that meet, of each label, of each cluster."""
    sides = [np.asarray(side) for side in (labels, clusters)]
    if sides[0].shape != sides[1].shape or sides[0].ndim != 1 or not sides[0].size:
        raise types.UsageError(
            f"labels {sides[0].shape} beside clusters {sides[1].shape}: give one of each for every row, 1 row or more"
        )
    if any(side.dtype.kind == "f" and not np.isfinite(side).all() for side in sides):
        raise types.UsageError("labels or clusters hold infinities or no numbers: give whole numbers")
    numbers, totals = [], []
    for side in sides:
        _, number, total = np.unique(side, return_inverse=True, return_counts=True)
        numbers.append(number.astype(np.int64))
        totals.append(total / side.size)
    met, counts = np.unique(numbers[0] * len(totals[1]) + numbers[1], return_counts=True)
    joint = (*np.divmod(met, len(totals[1])), counts / sides[0].size)
    return joint, *totals


def _scatter(features, labels):
    """Means [k, d] from a common origin, sizes [k], mean distances to the mean [k]; the sum of all squared ones."""
    features, groups, count = _checked(features, labels)
    shift = _mean(features)
    at_once = min(len(features), _ROWS_AT_ONCE)
    sizes = np.bincount(groups, minlength=count).astype(np.float64)
    sums = np.zeros((count, features.shape[1]))
    lengths, squares = np.zeros(count), 0.0
    parts = [slice(start, start + at_once) for start in range(0, len(features), at_once)]
    for part in parts:
        chunk = features[part] - shift
        order = np.argsort(groups[part], kind="stable")
        present, firsts = np.unique(groups[part][order], return_index=True)
        sums[present] += np.add.reduceat(chunk[order], firsts, axis=0, dtype=np.float64)
    means = sums / sizes[:, None]
    for part in parts:
        squared = np.sum((features[part] - shift - means[groups[part]].astype(np.float32)) ** 2, axis=1)
        squares += np.sum(squared, dtype=np.float64)
        lengths += np.bincount(groups[part], np.sqrt(squared), minlength=count)
    return means, sizes, lengths / sizes, squares


def _silhouettes(sums, groups, sizes):
    """float32 [b] from the sums of distances [b, k] of rows to the clusters."""
    own = np.arange(len(sums)), groups
    alone = sizes[groups] == 1
    inside = sums[own] / np.maximum(sizes[groups] - 1, 1)
    others = sums / sizes[None, :].astype(np.float32)
    others[own] = np.inf
    outside = others.min(axis=1)
    larger = np.maximum(inside, outside)
    scores = (outside - inside) / np.where(larger > 0, larger, 1.0)
    return np.where(alone, 0.0, scores).astype(np.float32)


def _mean(features):
    """float32 [d]: of equal rows exactly the row."""
    return np.mean(features, axis=0, dtype=np.float64).astype(np.float32)


@functools.partial(jax.jit, static_argnums=5, donate_argnums=0)
def _add_stripe(sums, data, shift, groups, stripe, at_once):
    """Adds to `sums` [n, k] the distances between stripe `stripe` and itself and all that follow."""
    here = _take(data, shift, groups, stripe, at_once, sums.shape[1])

    def visit(other, sums):
        there = _take(data, shift, groups, other, at_once, sums.shape[1])
        distances = _distances(here, there)
        sums = _add(sums, here, _matmul(distances, there[2]))
        # The stripe with itself has each pair twice already.
        again = jnp.where(other > stripe, _matmul(distances.T, here[2]), 0.0)
        return _add(sums, there, again)

    return jax.lax.fori_loop(stripe, -(-len(data) // at_once), visit, sums)


@functools.partial(jax.jit, static_argnums=(4, 5))
def _whole_stripe(data, shift, groups, start, at_once, count):
    """Sums of distances [b, k] of the rows from `start` to all."""
    chunk = jax.lax.dynamic_slice_in_dim(data, start, at_once) - shift[None]
    here = chunk, start + jnp.arange(at_once), None

    def visit(other, sums):
        there = _take(data, shift, groups, other, at_once, count)
        return sums + _matmul(_distances(here, there), there[2])

    return jax.lax.fori_loop(0, -(-len(data) // at_once), visit, jnp.zeros((at_once, count)))


def _take(data, shift, groups, stripe, at_once, count):
    """A stripe's rows around `shift`, their numbers, and their clusters [b, k] as ones.

    The last stripe reaches back over rows of the one before, whose ones are zeros here.
    """
    start = jnp.minimum(stripe * at_once, len(data) - at_once)
    chunk = jax.lax.dynamic_slice_in_dim(data, start, at_once) - shift[None]
    numbers = start + jnp.arange(at_once)
    own = jax.lax.dynamic_slice_in_dim(groups, start, at_once)[:, None] == jnp.arange(count)[None]
    return chunk, numbers, (own & (numbers >= stripe * at_once)[:, None]).astype(jnp.float32)


def _add(sums, place, more):
    """`more` [b, k] added to the stripe's rows, but to none that belongs to the stripe before."""
    _, numbers, members = place
    more = more * jnp.sum(members, axis=1, keepdims=True)
    before = jax.lax.dynamic_slice_in_dim(sums, numbers[0], len(more))
    return jax.lax.dynamic_update_slice_in_dim(sums, before + more, numbers[0], 0)


def _distances(here, there):
    """Euclidean [b, b] between two stripes; exactly 0 of a row to itself and to its equals."""
    (first, first_numbers, _), (second, second_numbers, _) = here, there
    lengths = jnp.sum(first**2, axis=1)[:, None] + jnp.sum(second**2, axis=1)[None, :]
    squared = lengths - 2 * _matmul(first, second.T)
    equal = (squared <= _ROUNDING * lengths) | (first_numbers[:, None] == second_numbers[None, :])
    return jnp.where(equal, 0.0, jnp.sqrt(jnp.where(equal, 1.0, squared)))


def _checked(features, labels):
    """Features float32, the labels as numbers from 0, and how many there are."""
    features, labels = np.asarray(features, np.float32), np.asarray(labels)
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise types.UsageError(f"clusters {labels.shape} of features {features.shape}: give one for each of [n, d]")
    if not np.isfinite(features).all():
        raise types.UsageError("clusters of features with infinities or no numbers: look for a run that diverged")
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise types.UsageError("clusters hold infinities or no numbers: give whole numbers")
    names, groups = np.unique(labels, return_inverse=True)
    if not 2 <= len(names) < len(features):
        raise types.UsageError(
            f"{len(names)} clusters of {len(features)} rows: their scores need from 2 to {len(features) - 1} clusters"
        )
    return features, groups.astype(np.int32), len(names)


# The default precision on accelerators has ten bits.
_matmul = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
