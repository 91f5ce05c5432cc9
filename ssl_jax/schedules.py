"""Numbers that change over a training, as functions of the step."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from ssl_jax.types import Steps, UsageError

Schedule = Callable[[jax.Array], jax.Array]
"""From a step, an integer scalar, to a float32 scalar."""


@dataclasses.dataclass(frozen=True)
class Cosine:
    """From `start` to `end` by half a cosine over the first `steps`, then `end`: R3GAN's burn-in (arXiv 2501.05441).

    Raises:
        UsageError: for less than one step.
    """

    start: float
    end: float
    steps: Steps

    def __post_init__(self):
        _require_steps(self)

    def __call__(self, step: int | jax.Array) -> jax.Array:
        progress = jnp.clip(jnp.asarray(step, jnp.float32) / self.steps, 0.0, 1.0)
        return self.end + (self.start - self.end) * 0.5 * (1.0 + jnp.cos(jnp.pi * progress))


@dataclasses.dataclass(frozen=True)
class Linear:
    """`start` for the first `hold_steps`, then a straight line to `end` at `steps`, then `end`.

    Raises:
        UsageError: for less than one step, or a hold that is not shorter than the whole.
    """

    start: float
    end: float
    steps: Steps
    hold_steps: Steps = 0

    def __post_init__(self):
        _require_steps(self)
        if not 0 <= self.hold_steps < self.steps:
            raise UsageError(f"hold_steps={self.hold_steps}: it must be at least 0 and below steps={self.steps}")

    def __call__(self, step: int | jax.Array) -> jax.Array:
        moved = (jnp.asarray(step, jnp.float32) - self.hold_steps) / (self.steps - self.hold_steps)
        return self.start + (self.end - self.start) * jnp.clip(moved, 0.0, 1.0)


def at(value: float | Schedule, step: int | jax.Array) -> jax.Array:
    """What a constant or a schedule is at a step, a float32 scalar."""
    return jnp.asarray(value(step) if callable(value) else value, jnp.float32)


def _require_steps(schedule: Cosine | Linear) -> None:
    if schedule.steps < 1:
        raise UsageError(f"steps={schedule.steps}: a schedule takes at least 1 step")
