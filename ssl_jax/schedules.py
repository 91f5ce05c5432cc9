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


@dataclasses.dataclass(frozen=True)
class EpochwiseLinear:
    """`start` for `hold_steps`, then a step down at the start of each epoch, equal ones that end short of zero.

    In the n-th epoch after the hold the value is start * (1 - n / (decay epochs + 1)), so the last epoch still trains:
    of 100 and 100 epochs it has 0.0099 of the start. This is the reference CycleGAN's learning rate with its scheduler
    called at the end of each epoch (junyanz/pytorch-CycleGAN-and-pix2pix, networks.get_scheduler, "linear").

    Attributes:
        start: the value to begin with.
        hold_steps: how long it stays.
        decay_steps: how long it falls; where that is no whole number of epochs the last fall is smaller.
        epoch_steps: one epoch, counted from the end of the hold.

    Raises:
        UsageError: for a negative duration, or no epoch at all.
    """

    start: float
    hold_steps: Steps
    decay_steps: Steps
    epoch_steps: Steps

    def __post_init__(self):
        if self.epoch_steps < 1 or self.decay_steps < 0 or self.hold_steps < 0:
            raise UsageError(
                f"epoch_steps={self.epoch_steps} must be at least 1, hold_steps={self.hold_steps} and "
                f"decay_steps={self.decay_steps} at least 0"
            )

    def __call__(self, step: int | jax.Array) -> jax.Array:
        number = (jnp.asarray(step, jnp.int32) - self.hold_steps) // self.epoch_steps + 1
        epochs = self.decay_steps / self.epoch_steps
        return self.start * (1.0 - jnp.clip(number, 0.0, epochs) / (epochs + 1.0))


def at(value: float | Schedule, step: int | jax.Array) -> jax.Array:
    """What a constant or a schedule is at a step, a float32 scalar."""
    return jnp.asarray(value(step) if callable(value) else value, jnp.float32)


def _require_steps(schedule: Cosine | Linear) -> None:
    if schedule.steps < 1:
        raise UsageError(f"steps={schedule.steps}: a schedule takes at least 1 step")
