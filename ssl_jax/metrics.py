"""What is counted: masked means, accuracies, the collapse gauge, and the one pass over a set that feeds them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax import types

_SMALLEST_NORM = 1e-12


@flax.struct.dataclass
class Mean:
    """A mean as (sum, count), so that batches of any size merge exactly and the division comes once.

    Attributes:
        total: float32 scalar, the weighted sum.
        count: float32 scalar, the sum of the weights.
    """

    total: jax.Array
    count: jax.Array

    @classmethod
    def of(cls, values: jax.Array, weights: jax.Array | None = None) -> "Mean":
        """The mean of `values` [...] under `weights` of the same shape, a bool mask included.

        A value of weight 0 is never read, so padding may hold anything, NaN included.
        """
        values = jnp.asarray(values, jnp.float32)
        if weights is None:
            return cls(jnp.sum(values), jnp.float32(values.size))
        weights = jnp.asarray(weights, jnp.float32)
        return cls(jnp.sum(jnp.where(weights > 0, values, 0.0) * weights), jnp.sum(weights))

    @classmethod
    def empty(cls) -> "Mean":
        """The mean of nothing: neutral in `merge`, NaN in `compute`."""
        return cls(jnp.float32(0), jnp.float32(0))

    def merge(self, other: "Mean") -> "Mean":
        """The mean over both."""
        return Mean(self.total + other.total, self.count + other.count)

    def compute(self) -> jax.Array:
        """Sum over count, float32; NaN where nothing was counted."""
        return self.total / self.count


def accuracy(logits: jax.Array, labels: jax.Array, mask: jax.Array | None = None) -> Mean:
    """How often the largest logit is the label's: logits [b, k], labels int [b], mask bool [b]."""
    return Mean.of(jnp.argmax(logits, axis=-1) == labels, mask)


def top_k(logits: jax.Array, labels: jax.Array, k: int, mask: jax.Array | None = None) -> Mean:
    """How often the label is among the k largest logits: logits [b, c], labels int [b], mask bool [b]."""
    return Mean.of(jnp.any(jax.lax.top_k(logits, k)[1] == labels[:, None], axis=-1), mask)


def output_deviation(outputs: jax.Array) -> jax.Array:
    """SimSiam's collapse gauge: the mean over channels of the deviation over samples of `outputs / |outputs|`.

    0 where all outputs point the same way, about 1 / sqrt(d) where they spread evenly, and never above it: for unit
    vectors the variances add up to 1 less the mean cosine between two of them, so the gauge times sqrt(d) is at most
    sqrt(1 - mean cosine). Section 4.1 of arXiv 2011.10566; like it, blind to outputs that fill only a rotated subspace.

    Args:
        outputs: float [b, d].

    Returns:
        float32 scalar.
    """
    outputs = jnp.asarray(outputs, jnp.float32)
    unit = outputs / jnp.maximum(jnp.linalg.norm(outputs, axis=-1, keepdims=True), _SMALLEST_NORM)
    return jnp.mean(jnp.std(unit, axis=0))


def collect(
    function: Callable[[np.ndarray], Any], batches: Iterable[Mapping[str, np.ndarray]]
) -> tuple[Any, np.ndarray]:
    """One pass: `function(batch["image"])` of every example that the masks keep, in order, and their labels.

    Args:
        function: from uint8 [b, h, w, c] to an array [b, ...], or to a tree of such arrays.
        batches: dicts of `image`, `label` int32 [b] and `mask` bool [b], as `types.Examples.batches()` yields.

    Returns:
        Host arrays [n, ...] in the tree that `function` returns, and labels int32 [n].

    Raises:
        UsageError: the masks keep nothing.
    """
    results, labels = [], []
    for batch in batches:
        keep = np.asarray(batch["mask"], bool)
        results.append(jax.tree.map(lambda array, keep=keep: np.asarray(array)[keep], function(batch["image"])))
        labels.append(np.asarray(batch["label"], np.int32)[keep])
    if not sum(len(part) for part in labels):
        raise types.UsageError("an evaluator's set holds no examples: choose a split that has some")
    return jax.tree.map(lambda *parts: np.concatenate(parts), *results), np.concatenate(labels)


def pick(batches: Iterable[Mapping[str, np.ndarray]], positions: Sequence[int] | np.ndarray) -> np.ndarray:
    """The images at `positions` among those that the masks keep, in the order asked for, repeats included.

    Reads no further than the last position, and holds only what was asked for.

    Args:
        batches: as for `collect`.
        positions: int [p], each in [0, n).

    Returns:
        uint8 [p, h, w, c].

    Raises:
        RunError: a position lies beyond the last example.
    """
    positions = np.asarray(positions)
    wanted, inverse = np.unique(positions, return_inverse=True)
    found, first = [], 0
    for batch in batches:
        images = np.asarray(batch["image"])[np.asarray(batch["mask"], bool)]
        here = wanted[(wanted >= first) & (wanted < first + len(images))]
        found.append(images[here - first])
        first += len(images)
        if wanted[-1] < first:
            return np.concatenate(found)[inverse.reshape(positions.shape)]
    raise types.RunError(f"an evaluator wanted example {wanted[-1]} of a set that gave only {first}")
