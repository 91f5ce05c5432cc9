"""Losses: arrays in, one value per example out; the mean over a batch and stop-gradients are the caller's."""

import jax
import jax.numpy as jnp
import optax

COSINE_EPSILON = 1e-8


def negative_cosine_similarity(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """Minus the cosine of the angle between each prediction and its target, in at least float32.

    As `torch.nn.CosineSimilarity(dim=1)`, which the reference implementation of SimSiam uses: each norm is held at or
    above 1e-8, so value and gradient are finite at a zero vector (optax's version with its default gives NaN there).

    Args:
        prediction: float [b, d].
        target: float [b, d].

    Returns:
        Values in [-1, 1], float32 [b] (float64 for float64 arguments).

    Source: SimSiam (arXiv 2011.10566), equation 1.
    """
    return -jnp.sum(_normalized(prediction) * _normalized(target), axis=-1)


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Minus the log-probability that a softmax over the logits gives to each label, in at least float32.

    Args:
        logits: float [b, k].
        labels: integers [b] in 0..k-1.

    Returns:
        Nats, at least 0, float32 [b] (float64 for float64 logits).
    """
    return optax.softmax_cross_entropy_with_integer_labels(_at_least_float32(logits), labels)


def _at_least_float32(values: jax.Array) -> jax.Array:
    return values.astype(jnp.promote_types(values.dtype, jnp.float32))


def _normalized(vectors: jax.Array) -> jax.Array:
    vectors = _at_least_float32(vectors)
    # The bound stands under the root: a root taken at zero first would have an infinite slope there.
    squared_norm = jnp.sum(jnp.square(vectors), axis=-1, keepdims=True)
    return vectors / jnp.sqrt(jnp.maximum(squared_norm, COSINE_EPSILON**2))
