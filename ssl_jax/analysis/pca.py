"""Principal components, with signs that do not change from run to run."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax import types


class Principal(NamedTuple):
    """What `pca` found.

    Attributes:
        projected: float32 [n, c], the centred features in the new axes.
        components: float32 [c, d], orthonormal rows, the one of most variance first.
        explained_variance_ratio: float32 [c], each component's share of the whole variance, in [0, 1].
    """

    projected: np.ndarray
    components: np.ndarray
    explained_variance_ratio: np.ndarray


def pca(features: np.ndarray | jax.Array, components: int) -> Principal:
    """The leading principal components of `features`; each one's entry of largest size is positive.

    The sign rule is scikit-learn's `svd_flip(..., u_based_decision=False)`. Features without any variance have
    explained ratios of 0.

    Args:
        features: float [n, d].
        components: how many, 1 to min(n, d).

    Raises:
        UsageError: more components than min(n, d), or fewer than 1.
    """
    rows, width = features.shape
    if not 1 <= components <= min(rows, width):
        raise types.UsageError(
            f"{components} principal components of {rows} x {width} features: ask for 1 to {min(rows, width)}"
        )
    return Principal(*(np.asarray(array) for array in _pca(jnp.asarray(features, jnp.float32), components)))


@functools.partial(jax.jit, static_argnums=1)
def _pca(features: jax.Array, count: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    rows, width = features.shape
    multiply = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    centred = features - jnp.mean(features, axis=0, keepdims=True)
    # Only the small side's square is decomposed: an SVD of 10,000 x 2,048 features takes minutes on a CPU.
    if rows < width:
        left = jnp.linalg.eigh(multiply(centred, centred.T))[1][:, ::-1][:, :count]
        axes = multiply(left.T, centred)
        axes = axes / jnp.maximum(jnp.linalg.norm(axes, axis=1, keepdims=True), jnp.finfo(jnp.float32).tiny)
    else:
        axes = jnp.linalg.eigh(multiply(centred.T, centred))[1][:, ::-1][:, :count].T
    largest = jnp.take_along_axis(axes, jnp.argmax(jnp.abs(axes), axis=1)[:, None], axis=1)
    axes = axes * jnp.where(largest < 0, -1.0, 1.0)
    projected = multiply(centred, axes.T)
    whole = jnp.sum(centred**2)
    ratio = jnp.where(whole > 0, jnp.sum(projected**2, axis=0) / jnp.where(whole > 0, whole, 1.0), 0.0)
    return projected, axes, ratio
