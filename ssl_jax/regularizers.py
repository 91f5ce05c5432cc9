"""Penalties on the slope of a discriminator, in float32 whatever its layers compute in."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from ssl_jax import schedules
from ssl_jax.types import UsageError

Judge = Callable[[Sequence[jax.Array]], Sequence[jax.Array]]
"""From groups of images, each [b, ...], to the discriminator's logits [b] of each group."""

_SMALLEST_SQUARE = 1e-24


@dataclasses.dataclass(frozen=True)
class GradientPenalty:
    """Keeps the discriminator's slope with respect to its images small, or near 1.

    R1 and R2 are gamma / 2 times the squared norm of the slope at real and at generated images (Mescheder et al. 2018,
    arXiv 1801.04406, eq. 9 and 10). `interpolated` is lambda (|slope| - 1)^2 at points drawn uniformly on the line from
    a real to a generated image (WGAN-GP, arXiv 1704.00028, eq. 3).

    Attributes:
        r1: gamma of R1, constant or scheduled.
        r2: gamma of R2.
        interpolated: lambda.
        every: updates of the discriminator from one penalised update to the next, whose penalty then counts `every`
            times (StyleGAN2's lazy regularisation, arXiv 1912.04958, section 3.1; there the penalty is an Adam step
            of its own, here one step takes the sum of both gradients).

    Raises:
        UsageError: if nothing is penalised, a weight is negative, or `every` is below 1.
    """

    r1: float | schedules.Schedule = 0.0
    r2: float | schedules.Schedule = 0.0
    interpolated: float = 0.0
    every: int = 1

    def __post_init__(self):
        weights = [weight for weight in (self.r1, self.r2, self.interpolated) if not callable(weight)]
        if any(weight < 0 for weight in weights):
            raise UsageError("r1, r2 and interpolated are weights: give numbers of at least 0")
        if len(weights) == 3 and not any(weights):
            raise UsageError("nothing is penalised: set r1, r2 or interpolated, or leave the regularizer out")
        if self.every < 1:
            raise UsageError(f"every={self.every}: a penalty comes every 1 update or more")

    def __call__(
        self, judge: Judge, real: jax.Array, fake: jax.Array, key: jax.Array, step: int | jax.Array
    ) -> jax.Array:
        """The penalty of each pair, not yet counted `every` times.

        Args:
            judge: logits of groups of images; groups are independent of each other.
            real, fake: float [b, ...].
            key: of the points between the two.
            step: the training step, for schedules.

        Returns:
            float32 [b] (float64 for float64 images), at least 0.
        """
        penalty = jnp.zeros(len(real), real.dtype)
        groups = [
            (weight, images) for weight, images in ((self.r1, real), (self.r2, fake)) if callable(weight) or weight
        ]
        if groups:
            slopes = squared_slopes(judge, [images for _, images in groups])
            for (weight, _), slope in zip(groups, slopes, strict=True):
                penalty += 0.5 * schedules.at(weight, step) * slope
        if self.interpolated:
            share = jax.random.uniform(key, (len(real),) + (1,) * (real.ndim - 1), real.dtype)
            (slope,) = squared_slopes(judge, [share * real + (1.0 - share) * fake])
            # The bound stands under the root, which has an infinite slope at zero.
            norm = jnp.sqrt(jnp.maximum(slope, _SMALLEST_SQUARE))
            penalty += self.interpolated * jnp.square(norm - 1.0)
        return penalty


def squared_slopes(judge: Judge, groups: Sequence[jax.Array]) -> list[jax.Array]:
    """The squared norm of each logit's gradient with respect to its own image, [b] for each group [b, ...].

    It is the gradient of the logits' sum, as every reference code takes it; with batch norm, where a logit depends on
    the other images too, that is not the gradient of each alone.
    """

    def total(groups):
        return sum(jnp.sum(logits) for logits in judge(groups))

    gradients = jax.grad(total)(list(groups))
    return [jnp.sum(jnp.square(gradient), axis=tuple(range(1, gradient.ndim))) for gradient in gradients]
