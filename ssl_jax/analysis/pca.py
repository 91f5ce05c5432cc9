"""Principal components, with signs that do not change from run to run."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax import types

_NUMBERS_AT_ONCE = 2**24
_ROWS_AT_ONCE, _CHANNELS_AT_ONCE = 2048, 256
# In variances: a mean whose square is no larger is left in the products, where it costs less than a digit.
_SMALL_MEAN = 4.0
_LOOKED_AT = 256


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
    values, vectors = np.linalg.eigh(square, UPLO="U")
    values, vectors = np.maximum(values[::-1][:components], 0.0), vectors[:, ::-1][:, :components]
    if rows < width:
        axes = np.asarray(_matmul(vectors.T.astype(np.float32), _centred(features, shift, offset)), np.float64)
        # Of a component without variance only rounding is left, in no direction of its own.
        axes = np.linalg.qr((axes / np.maximum(np.linalg.norm(axes, axis=1, keepdims=True), 1e-30)).T)[0].T
    else:
        axes = vectors.T
    largest = np.take_along_axis(axes, np.argmax(np.abs(axes), axis=1)[:, None], axis=1)
    axes = (axes * np.where(largest < 0, -1.0, 1.0)).astype(np.float32)
    projected = np.empty((rows, components), np.float32)
    for part in _parts(features):
        if _on_host():
            _project_on_host(_on_device(features[part]), shift, offset, axes, projected[part])
        else:
            projected[part] = _project(_on_device(features[part]), shift, offset, axes)
    ratio = values / max(np.trace(square), np.finfo(np.float64).tiny)
    return Principal(projected, axes, ratio.astype(np.float32), (shift + offset.astype(np.float64)).astype(np.float32))


def spread(features: np.ndarray | jax.Array) -> np.ndarray:
    """The share of the variance that each of all principal components holds, the largest first.

    scikit-learn's `explained_variance_ratio_`, of a covariance that is summed in float32 for the most part: shares
    below 1e-6 of the largest say little.

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
    return np.maximum(np.linalg.eigvalsh(square, UPLO="U")[::-1], 0.0) / max(
        np.trace(square), np.finfo(np.float64).tiny
    )


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

    Of the square only the diagonal and what lies above it is meant. What centres are two vectors float32 [d] to take
    off one after the other, a mean of some rows and what it misses: so a common offset costs no digits, and equal rows
    leave exactly nothing.
    """
    rows, width = features.shape
    # What is not finite is told of afterwards.
    with np.errstate(invalid="ignore", over="ignore"):
        some = np.asarray(features[:_LOOKED_AT], np.float32)
        shift = some[0] + np.mean(some - some[0], axis=0)
        if np.sum(shift.astype(np.float64) ** 2) <= _SMALL_MEAN * np.sum(np.var(some, axis=0, dtype=np.float64)):
            shift = np.zeros_like(shift)
        total, square = np.zeros(width), np.zeros((width, width) if rows >= width else (0, 0))
        moments = _moments_on_host if _on_host() else _moments
        for part in _parts(features):
            summed, blocks = moments(_on_device(features[part]), shift, rows >= width)
            total += np.asarray(summed)
            for block in blocks:
                # Each begins on the diagonal and goes on to the last channel.
                first = width - block.shape[1]
                square[first : first + len(block), first:] += np.asarray(block)
    if not np.isfinite(total).all():
        raise types.UsageError("principal components of infinities or no numbers: look for a run that diverged")
    mean = total / rows
    offset = mean.astype(np.float32)
    if rows < width:
        centred = _centred(features, shift, offset)
        return np.asarray(_matmul(centred, centred.T), np.float64), shift, offset
    return square - rows * np.outer(mean, mean), shift, offset


def _on_host():
    """Whether to multiply by the host's BLAS: it halves the product of a matrix with itself, which XLA does not."""
    return jax.default_backend() == "cpu"


def _moments_on_host(data, shift, squares):
    """`_moments`, whose blocks are then one."""
    data = _shifted(data, shift)
    return np.ones(len(data), np.float32) @ data, [data.T @ data] if squares else []


def _project_on_host(data, shift, offset, axes, projected):
    across = np.ascontiguousarray(axes.T)
    np.matmul(_shifted(data, shift), across, out=projected)
    projected -= offset @ across


def _shifted(data, shift):
    return data - shift if shift.any() else data


def _parts(features):
    rows, width = features.shape
    at_once = max(1, _NUMBERS_AT_ONCE // width)
    return [slice(start, start + at_once) for start in range(0, rows, at_once)]


def _on_device(features):
    features = np.asarray(features, np.float32)
    # Which takes the features' own memory where it can, unlike jnp.asarray.
    return features if _on_host() else jax.device_put(features)


def _centred(features, shift, offset):
    return np.asarray(features, np.float32) - shift - offset


@functools.partial(jax.jit, static_argnums=2)
def _moments(data, shift, squares):
    """The sum [d] of `data - shift` and, unless `squares` is false, its square by blocks of rows [b, d - first]."""
    width = data.shape[1]
    firsts = range(0, width, _CHANNELS_AT_ONCE) if squares else ()

    def add(carry, chunk):
        total, blocks = carry
        chunk = chunk - shift[None]
        # The square is symmetric: each block is multiplied with itself and those that follow.
        products = [_matmul(chunk[:, first : first + _CHANNELS_AT_ONCE].T, chunk[:, first:]) for first in firsts]
        return total + jnp.sum(chunk, axis=0), [block + one for block, one in zip(blocks, products, strict=True)]

    empty = [jnp.zeros((min(_CHANNELS_AT_ONCE, width - first), width - first)) for first in firsts]
    return _over_chunks(data, add, (jnp.zeros(width), empty))


@jax.jit
def _project(data, shift, offset, axes):
    whole = jnp.zeros((len(data), len(axes)))

    def add(carry, chunk):
        start, found = carry
        chunk = _matmul(chunk - shift[None] - offset[None], axes.T)
        return start + len(chunk), jax.lax.dynamic_update_slice_in_dim(found, chunk, start, 0)

    return _over_chunks(data, add, (0, whole))[1]


def _over_chunks(data, add, carry):
    """`add(carry, rows)` over all rows of `data` in order, some of them at a time: memory holds no second copy."""
    full, rest = divmod(len(data), _ROWS_AT_ONCE)

    def advance(number, carry):
        return add(carry, jax.lax.dynamic_slice_in_dim(data, number * _ROWS_AT_ONCE, _ROWS_AT_ONCE))

    carry = jax.lax.fori_loop(0, full, advance, carry) if full else carry
    return add(carry, data[len(data) - rest :]) if rest else carry


# The default precision on accelerators has ten bits.
_matmul = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
