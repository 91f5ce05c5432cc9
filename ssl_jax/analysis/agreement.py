"""Whether views of one image agree while images differ: measures that need no labels."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from scipy import linalg

from ssl_jax import types
from ssl_jax.analysis import spectrum

_AT_ONCE = 2**22
_ROWS_AT_ONCE = 2048
_SMALLEST_NORM = 1e-12


def alignment(first: np.ndarray | jax.Array, second: np.ndarray | jax.Array) -> float:
    """The mean squared distance between the unit features of two views of an image: 0 equal, 2 unrelated, 4 opposite.

    Wang and Isola 2020 (arXiv 2005.10242, section 4.1.1, exponent 2). A row of zeros has no direction and stays zeros.

    Args:
        first, second: float [n, d], row by row of the same images.

    Raises:
        UsageError: shapes that differ or are not [n, d], n and d 1 or more, or features that are not finite.
    """
    return _mean(_squared_distances, first, second)


def mean_cosine(first: np.ndarray | jax.Array, second: np.ndarray | jax.Array) -> float:
    """The mean cosine between the features of two views, in [-1, 1]; a row of zeros has cosine 0 to everything.

    Args:
        first, second: float [n, d], row by row of the same images.

    Raises:
        UsageError: as `alignment`.
    """
    return _mean(_cosines, first, second)


def uniformity(features: np.ndarray | jax.Array, *, rows: int | None = None) -> float:
    """log mean exp(-2 |x - y|^2) over all pairs of two different rows' unit features: 0 all equal, lower is more even.

    Wang and Isola 2020 (arXiv 2005.10242, section 4.1.2, t = 2). Evenly spread features come to about -4 + 8 / d for
    d large, and none to less than -8. Every pair is counted, a block at a time: the time grows with the square of
    the rows, the memory does not.

    Args:
        features: float [n, d], n 2 or more. A row of zeros has no direction and stays zeros.
        rows: take only so many, 2 or more, evenly spread over all; None takes all. 10,000 are 50 million pairs.

    Raises:
        UsageError: fewer than 2 rows, or features that are not [n, d] or not finite.
    """
    features = _checked(features, 2)
    if rows is not None and rows < 2:
        raise types.UsageError(f"uniformity of rows={rows}: pairs need 2 or more")
    if rows is not None and rows < len(features):
        features = features[np.arange(rows) * len(features) // rows]
    total = len(features)
    if total < 2:
        raise types.UsageError(f"uniformity of {total} row: pairs need 2 or more; give more images")
    at_once = min(_ROWS_AT_ONCE, total)
    # Filled up to whole blocks, so that one compiled program serves all.
    padded = np.zeros((-(-total // at_once) * at_once, features.shape[1]), np.float32)
    padded[:total] = features
    unit = _unit(jnp.asarray(padded))
    summed = 0.0
    for upper in range(0, total, at_once):
        for left in range(upper, total, at_once):
            summed += np.asarray(_potentials(unit, upper, left, total, at_once)).sum(dtype=np.float64)
    return float(np.log(summed / (total * (total - 1) / 2)))


def lidar(views: np.ndarray | jax.Array, *, delta: float = 1e-4) -> float:
    """In how many directions images differ more than views of one image do: 1 to min(n - 1, d), the more the better.

    LiDAR, Thilak et al. 2023 (arXiv 2312.04000, section 4): the smooth rank (`spectrum.rank_me`) of the eigenvalues of
    Sw^-1/2 Sb Sw^-1/2. Sb is the covariance of the n images' mean features around their mean, and Sw that of the
    views around their image's mean, plus delta times the identity; both are plain means over images and views. The
    paper takes 1,000 images in 50 views. `delta` is not relative: features far smaller than its root count for little
    against it.

    Args:
        views: float [n, q, d]: q views of each of n images, both 2 or more.
        delta: above 0.

    Returns:
        0.0 where the images' means do not differ.

    Raises:
        UsageError: fewer images or views, delta not above 0, or features that are not finite.
    """
    views = _checked(views, 3)
    images, each, width = views.shape
    if images < 2 or each < 2 or not delta > 0:
        raise types.UsageError(
            f"LiDAR of {images} images in {each} views with delta={delta}: give 2 or more of both and a delta above 0"
        )
    means = views.mean(axis=1, dtype=np.float64)
    within = np.zeros((width, width))
    at_once = max(1, _AT_ONCE // (each * width))
    for start in range(0, images, at_once):
        part = (views[start : start + at_once] - means[start : start + at_once, None]).reshape(-1, width)
        within += part.T @ part
    within = within / (images * each) + delta * np.eye(width)
    scale = np.mean(means**2)
    means -= means.mean(axis=0)
    # What is left of equal means is rounding, not a direction.
    if np.mean(means**2) <= (np.finfo(np.float32).eps / 2) ** 2 * scale:
        return 0.0
    return spectrum.rank_me(np.maximum(linalg.eigh(means.T @ means / images, within, eigvals_only=True), 0.0))


def _mean(function: Callable[[jax.Array, jax.Array], jax.Array], first: np.ndarray, second: np.ndarray) -> float:
    first, second = _checked(first, 2), _checked(second, 2)
    if first.shape != second.shape:
        raise types.UsageError(f"views of shapes {first.shape} and {second.shape}: give both of the same images")
    rows, width = first.shape
    at_once = max(1, min(rows, _AT_ONCE // width))
    total = 0.0
    for start in range(0, rows, at_once):
        parts = (side[start : start + at_once] for side in (first, second))
        total += np.asarray(function(*parts)).sum(dtype=np.float64)
    return float(total / rows)


@jax.jit
def _squared_distances(first: jax.Array, second: jax.Array) -> jax.Array:
    return jnp.sum((_unit(first) - _unit(second)) ** 2, axis=1)


@jax.jit
def _cosines(first: jax.Array, second: jax.Array) -> jax.Array:
    return jnp.sum(_unit(first) * _unit(second), axis=1)


@functools.partial(jax.jit, static_argnames="at_once")
def _potentials(unit: jax.Array, upper: int, left: int, total: int, at_once: int) -> jax.Array:
    """float32 [b]: for each row from `upper` on, the sum over later rows from `left` on, both `at_once` long."""
    first = jax.lax.dynamic_slice_in_dim(unit, upper, at_once)
    second = jax.lax.dynamic_slice_in_dim(unit, left, at_once)
    # The default precision on accelerators has ten bits; the exponential makes an error eight times as large.
    products = jnp.matmul(first, second.T, precision=jax.lax.Precision.HIGHEST)
    squared = jnp.sum(first**2, axis=1)[:, None] - 2.0 * products + jnp.sum(second**2, axis=1)[None]
    rows, columns = upper + jnp.arange(at_once)[:, None], left + jnp.arange(at_once)[None]
    counted = (rows < columns) & (columns < total)
    return jnp.sum(jnp.where(counted, jnp.exp(-2.0 * squared), 0.0), axis=1)


def _unit(features: jax.Array) -> jax.Array:
    return features / jnp.maximum(jnp.linalg.norm(features, axis=-1, keepdims=True), _SMALLEST_NORM)


def _checked(features: np.ndarray | jax.Array, axes: int) -> np.ndarray:
    features = np.asarray(features, np.float32)
    if features.ndim != axes or not features.size:
        wanted = "[n, d]" if axes == 2 else "[n, q, d]"
        raise types.UsageError(f"agreement of features of shape {features.shape}: give {wanted}, each 1 or more")
    if not np.isfinite(features).all():
        raise types.UsageError("agreement of features with infinities or no numbers: look for a run that diverged")
    return features
