"""Losses: arrays in, one value per example out; the mean over a batch and stop-gradients are the caller's."""

from typing import Literal

import jax
import jax.numpy as jnp
import optax

COSINE_EPSILON = 1e-8

Adversarial = Literal["non_saturating", "least_squares", "hinge", "wasserstein", "relativistic"]
"""The losses of two networks in contest; see `discriminator_loss` and `generator_loss`."""


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


def discriminator_loss(name: Adversarial, real: jax.Array, fake: jax.Array) -> jax.Array:
    """What the discriminator minimises, given its logits on real and on generated images.

    - non_saturating: softplus(-real) + softplus(fake), the cross-entropy of Goodfellow et al. (arXiv 1406.2661, eq. 1);
    - least_squares: (real - 1)^2 / 2 + fake^2 / 2 (Mao et al., arXiv 1611.04076, eq. 9);
    - hinge: relu(1 - real) + relu(1 + fake) (Miyato et al., arXiv 1802.05957, eq. 16);
    - wasserstein: fake - real (Arjovsky et al., arXiv 1701.07875), which wants a gradient penalty;
    - relativistic: softplus(fake - real), each real image paired with one generated (R3GAN, arXiv 2501.05441, eq. 2).

    Args:
        name: one of these.
        real, fake: float [b].

    Returns:
        float32 [b] (float64 for float64 logits).
    """
    real, fake = _at_least_float32(real), _at_least_float32(fake)
    if name == "non_saturating":
        return jax.nn.softplus(-real) + jax.nn.softplus(fake)
    if name == "least_squares":
        return 0.5 * jnp.square(real - 1.0) + 0.5 * jnp.square(fake)
    if name == "hinge":
        return jax.nn.relu(1.0 - real) + jax.nn.relu(1.0 + fake)
    if name == "wasserstein":
        return fake - real
    return jax.nn.softplus(fake - real)


def generator_loss(name: Adversarial, real: jax.Array, fake: jax.Array) -> jax.Array:
    """What the generator minimises; `real` counts in the relativistic loss alone, see `needs_real`.

    non_saturating: softplus(-fake); least_squares: (fake - 1)^2 / 2; hinge and wasserstein: -fake; relativistic:
    softplus(real - fake), the discriminator's with the roles exchanged. Arguments and result as of
    `discriminator_loss`.
    """
    real, fake = _at_least_float32(real), _at_least_float32(fake)
    if name == "non_saturating":
        return jax.nn.softplus(-fake)
    if name == "least_squares":
        return 0.5 * jnp.square(fake - 1.0)
    if name in ("hinge", "wasserstein"):
        return -fake
    return jax.nn.softplus(real - fake)


def needs_real(name: Adversarial) -> bool:
    """Whether the generator's loss looks at real images as well."""
    return name == "relativistic"


def _at_least_float32(values: jax.Array) -> jax.Array:
    return values.astype(jnp.promote_types(values.dtype, jnp.float32))


def _normalized(vectors: jax.Array) -> jax.Array:
    vectors = _at_least_float32(vectors)
    # The bound stands under the root: a root taken at zero first would have an infinite slope there.
    squared_norm = jnp.sum(jnp.square(vectors), axis=-1, keepdims=True)
    return vectors / jnp.sqrt(jnp.maximum(squared_norm, COSINE_EPSILON**2))
