"""Averages of a network over its training."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ssl_jax.types import Steps, UsageError


@dataclasses.dataclass(frozen=True)
class MovingAverage:
    """An exponential moving average of a network, which is what samples are drawn from.

    After update t (from 0) the average is d * average + (1 - d) * network with d = 2^(-1 / h), h = `half_life`, but
    never above `ramp_up` * t, so that a short training's average does not remember its random start (StyleGAN2-ADA's
    rule); with `burn_in`, h grows from 0 along half a cosine over that time (R3GAN). Batch statistics are averaged as
    parameters are (BigGAN's code).

    Attributes:
        half_life: a duration such as "500 kimages": it is counted in images that steps read, so batch sizes compare;
            where the discriminator is updated several times a step, all of its images count.
        ramp_up: h as a share of the training so far.
        burn_in: a duration; 0 for none.

    Raises:
        UsageError: for a half-life below a step or a ramp-up that is not above 0.
    """

    half_life: Steps
    ramp_up: float = 0.05
    burn_in: Steps = 0

    def __post_init__(self):
        if self.half_life < 1 or not self.ramp_up > 0:
            raise UsageError(
                f"half_life={self.half_life} steps and ramp_up={self.ramp_up}: the first must be at least 1 step, "
                "the second above 0"
            )

    def decay(self, step: jax.Array) -> jax.Array:
        """What the average keeps at the update that follows `step` updates, a float32 scalar in [0, 1)."""
        made = jnp.asarray(step, jnp.float32)
        half_life = jnp.float32(self.half_life)
        if self.burn_in:
            half_life *= 0.5 * (1.0 - jnp.cos(jnp.pi * jnp.minimum(made / self.burn_in, 1.0)))
        half_life = jnp.minimum(half_life, self.ramp_up * made)
        return jnp.where(half_life > 0, 0.5 ** (1.0 / jnp.maximum(half_life, 1e-6)), 0.0)

    def updated(self, average: Any, newest: Any, step: jax.Array) -> Any:
        """The average with the newest numbers taken in: trees of one structure, the types of `average`."""
        decay = self.decay(step)
        return jax.tree.map(lambda a, b: (decay * a + (1.0 - decay) * b).astype(a.dtype), average, newest)
