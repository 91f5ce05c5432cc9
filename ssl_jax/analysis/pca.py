"""Principal components, with signs that do not change from run to run."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from ssl_jax import types

_ROWS_AT_ONCE = 2048


class Principal(NamedTuple):
    """What `pca` found.

    Attributes:
        projected: float32 [n, c], the centred features in the new axes.
        components: float32 [c, d], orthonormal rows, the one of most variance first.
        explained_variance_ratio: float32 [c], each component's share of the whole variance, in [0, 1].
        mean: float32 [d], of the features.
    """

    projected: np.ndarray
    components: np.ndarray
    explained_variance_ratio: np.ndarray
    mean: np.ndarray


def pca(features: np.ndarray | jax.Array, components: int) -> Principal:
    """The leading principal components of `features`; each one's entry of largest size is positive.

    The sign rule is scikit-learn's `svd_flip(..., u_based_decision=False)`. Features without any variance have
    explained ratios of 0. The features go through in chunks: beside them, memory holds the square of the smaller side.

    Args:
        features: float [n, d], taken as float32.
        components: how many, 1 to min(n, d).

    Raises:
        UsageError: more components than min(n, d), or fewer than 1, or features that are not finite.
    """
    rows, width = features.shape
    if not 1 <= components <= min(rows, width):
        raise types.UsageError(
            f"{components} principal components of {rows} x {width} features: ask for 1 to {min(rows, width)}"
        )
    square, shift, offset = _square(features)
    chosen = [len(square) - components, len(square) - 1]
    values, vectors = scipy.linalg.eigh(square, subset_by_index=chosen, check_finite=False)
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    if rows < width:
        axes = np.asarray(_matmul(vectors.T.astype(np.float32), _centred(features, shift, offset)), np.float64)
        # Of a component without variance only rounding is left, in no direction of its own.
        axes = np.linalg.qr((axes / np.maximum(np.linalg.norm(axes, axis=1, keepdims=True), 1e-30)).T)[0].T
    else:
        axes = vectors.T
    largest = np.take_along_axis(axes, np.argmax(np.abs(axes), axis=1)[:, None], axis=1)
    axes = (axes * np.where(largest < 0, -1.0, 1.0)).astype(np.float32)
    projected = np.empty((rows, components), np.float32)
    for start, count, chunk in _chunks(features):
        projected[start : start + count] = np.asarray(_project(chunk, shift, offset, axes))[:count]
    ratio = values / max(np.trace(square), np.finfo(np.float64).tiny)
    return Principal(projected, axes, ratio.astype(np.float32), (shift + offset.astype(np.float64)).astype(np.float32))


def spread(features: np.ndarray | jax.Array) -> np.ndarray:
    """The share of the variance that each of all principal components holds, the largest first.

    scikit-learn's `explained_variance_ratio_`, of a covariance whose sums over 2,048 rows are in float32: shares below
    1e-7 of the largest say little.

    Args:
        features: float [n, d], taken as float32.

    Returns:
        float64 [min(n, d)], in [0, 1]; all 0 of features without variance.

    Raises:
        UsageError: features without a row or a channel, or not finite.
    """
    if not all(features.shape):
        raise types.UsageError(f"variance of features of shape {features.shape}: give one row and one channel or more")
    square, _, _ = _square(features)
    return np.maximum(np.linalg.eigvalsh(square)[::-1], 0.0) / max(np.trace(square), np.finfo(np.float64).tiny)


def reconstruct(principal: Principal, count: int) -> np.ndarray:
    """The features as their first `count` components tell them: float32 [n, d], the mean included.

    Raises:
        UsageError: more components than were found, or fewer than 0.
    """
    found = len(principal.components)
    if not 0 <= count <= found:
        raise types.UsageError(f"features from {count} of {found} principal components: ask for 0 to {found}")
    return principal.projected[:, :count] @ principal.components[:count] + principal.mean


def _square(features):
    """float64: the smaller side's square of the centred features, [d, d] or [n, n]; and what centres them.

    That are two vectors float32 [d] to take off one after the other, a mean of some rows and what it misses: so a
    common offset costs no digits, and equal rows leave exactly nothing.
    """
    rows, width = features.shape
    start = np.asarray(features[:_ROWS_AT_ONCE], np.float32)
    shift = start[0] + np.mean(start - start[0], axis=0)
    total, square = np.zeros(width), np.zeros((width, width) if rows >= width else ())
    for _, count, chunk in _chunks(features):
        if rows < width:
            total += np.asarray(_sum(chunk, shift, count))
        else:
            summed, part = _moments(chunk, shift, count)
            total += np.asarray(summed)
            square += np.asarray(part)
    if not np.isfinite(total).all():
        raise types.UsageError("principal components of infinities or no numbers: look for a run that diverged")
    mean = total / rows
    offset = mean.astype(np.float32)
    if rows < width:
        centred = _centred(features, shift, offset)
        return np.asarray(_matmul(centred, centred.T), np.float64), shift, offset
    return square - rows * np.outer(mean, mean), shift, offset


def _chunks(features):
    """(first row, rows, the rows float32) of chunks of one size; the last is filled up, so that one program serves."""
    rows, width = features.shape
    at_once = min(rows, _ROWS_AT_ONCE)
    for start in range(0, rows, at_once):
        chunk = np.asarray(features[start : start + at_once], np.float32)
        count = len(chunk)
        if count < at_once:
            chunk = np.concatenate([chunk, np.zeros((at_once - count, width), np.float32)])
        yield start, count, chunk


def _centred(features, shift, offset):
    return np.asarray(features, np.float32) - shift - offset


@jax.jit
def _sum(chunk, shift, count):
    return jnp.sum(_shifted(chunk, shift, count), axis=0)


@jax.jit
def _moments(chunk, shift, count):
    shifted = _shifted(chunk, shift, count)
    return jnp.sum(shifted, axis=0), _matmul(shifted.T, shifted)


def _shifted(chunk, shift, count):
    return jnp.where((jnp.arange(len(chunk)) < count)[:, None], chunk - shift[None], 0.0)


@jax.jit
def _project(chunk, shift, offset, axes):
    return _matmul(chunk - shift[None] - offset[None], axes.T)


# The default precision on accelerators has ten bits.
_matmul = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
