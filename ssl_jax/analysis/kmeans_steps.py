"""The passes over all rows that k-means consists of, each compiled once for a shape.

In each of them `data` is float32 [n, d], and `shift` what is taken off every row as it is visited, or None where the
rows are centred already; centres are float32 and around the same point.
"""

import functools

import jax
import jax.numpy as jnp

_SCORES_AT_ONCE = 2**23
ROWS_AT_ONCE = 2048
"""Of a chunk that is centred as it is visited."""


@jax.jit
def moments(data):
    """The mean [d], from which everything is measured so that a common offset costs no digits; the mean variance."""

    def add(power):
        def visit(total, chunk, start, fresh):
            return total + jnp.sum(jnp.where(fresh[:, None], chunk**power, 0.0), axis=0)

        return visit

    empty, scale = jnp.zeros(data.shape[1]), 1 / len(data)
    shift = data[0] + scale * _over_chunks(data, data[0], 1, add(1), empty)
    return shift, jnp.mean(scale * _over_chunks(data, shift, 1, add(2), empty))


@jax.jit
def centred(data, mean):
    """The rows around their mean."""
    return data - mean[None]


@jax.jit
def picked(data, shift, candidates, nearest):
    """Of the rows `candidates` [s, t] those that as further centres leave least: [s, d]; and what they leave.

    That is, as is `nearest`, each row's squared distance to the nearest centre, [s, n].
    """
    centers = less(data[candidates.reshape(-1)], shift).reshape(*candidates.shape, -1)
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
def move(data, shift, centers, labels):
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
def relabelled(data, shift, centers, labels):
    """The nearest of one start's `centers` [1, k, d] to each row, [1, n], and which rows have another than before."""
    lengths = jnp.sum(centers[0] ** 2, axis=1)

    def visit(found, chunk, start, fresh):
        nearest = jnp.argmin(lengths[:, None] - 2 * _matmul(centers[0], chunk.T), axis=0).astype(jnp.int32)
        return jax.lax.dynamic_update_slice_in_dim(found, nearest[None], start, 1)

    found = _over_chunks(data, shift, centers.shape[1], visit, labels)
    return found, found[0] != labels[0]


@functools.partial(jax.jit, static_argnames="clusters")
def difference(data, shift, rows, count, before, after, clusters):
    """What the first `count` of `rows` add to the sums [1, k, d] and sizes [1, k] as they change their clusters."""
    numbers, counted = jnp.arange(clusters), (jnp.arange(len(rows)) < count).astype(jnp.float32)
    came, left = ((labels[0][rows][None] == numbers[:, None]).astype(jnp.float32) for labels in (after, before))
    change = (came - left) * counted[None]
    return _matmul(change, less(data[rows], shift))[None], jnp.sum(change, axis=1)[None]


@jax.jit
def nearest(data, shift, centers):
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
def to_own(data, shift, centers, labels):
    """The squared distance [n] of each row to the centre that it is labelled with."""

    def visit(found, chunk, start, fresh):
        own = centers[jax.lax.dynamic_slice_in_dim(labels, start, len(chunk))]
        return jax.lax.dynamic_update_slice_in_dim(found, jnp.sum((chunk - own) ** 2, axis=1), start, 0)

    return _over_chunks(data, shift, 1, visit, jnp.zeros(len(data)))


def less(rows, shift):
    """Rows [m, d] around `shift`, or as they are where it is None."""
    return rows if shift is None else rows - shift[None]


def _over_chunks(data, shift, scores, visit, carry):
    """`visit(carry, chunk - shift, first row, which rows no chunk had before)` over all rows, `scores` numbers a row.

    The last chunk reaches back over rows that were seen, so that all have one size and no row is made up.
    """
    rows = len(data)
    at_once = max(1, min(rows, _SCORES_AT_ONCE // scores))
    if shift is not None:
        # A centred chunk is a copy, best kept near the processor.
        at_once = min(at_once, ROWS_AT_ONCE)
    if at_once == rows:
        return visit(carry, less(data, shift), 0, jnp.ones(rows, bool))

    def advance(number, carry):
        start = jnp.minimum(number * at_once, rows - at_once)
        chunk = jax.lax.dynamic_slice_in_dim(data, start, at_once)
        chunk = less(chunk, shift)
        return visit(carry, chunk, start, start + jnp.arange(at_once) >= number * at_once)

    return jax.lax.fori_loop(0, -(-rows // at_once), advance, carry)


# The default precision on accelerators has ten bits.
_matmul = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
