"""Gradient accumulation: several training steps make one update of an optimiser."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ssl_jax.types import UsageError


class AccumulationState(NamedTuple):
    """What waits for the next update.

    Attributes:
        count: steps since the last update, int32.
        total: the sum of their gradients, in at least float32.
        inner: the state of the transformation that makes the updates.
    """

    count: jax.Array
    total: Any
    inner: Any


def every(steps: int, inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """The same transformation, given the mean gradient of `steps` consecutive steps once they are complete.

    Before that its updates are zero and `inner` rests. Its state holds one more copy of the parameters. One step leaves
    `inner` as it is, its state's form included.

    Raises:
        UsageError: for less than one step.
    """
    if steps < 1:
        raise UsageError(f"accumulate_steps={steps}: an update takes the gradients of at least 1 step")
    if steps == 1:
        return optax.GradientTransformation(inner.init, inner.update)

    def init(params):
        total = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.promote_types(p.dtype, jnp.float32)), params)
        return AccumulationState(jnp.zeros([], jnp.int32), total, inner.init(params))

    def update(gradients, state, params=None):
        total = jax.tree.map(lambda t, g: t + g.astype(t.dtype), state.total, gradients)

        def complete():
            mean = jax.tree.map(lambda t, g: (t / steps).astype(g.dtype), total, gradients)
            updates, inner_state = inner.update(mean, state.inner, params)
            return updates, AccumulationState(jnp.zeros([], jnp.int32), optax.tree.zeros_like(total), inner_state)

        def wait():
            return optax.tree.zeros_like(gradients), AccumulationState(state.count + 1, total, state.inner)

        return jax.lax.cond(state.count + 1 == steps, complete, wait)

    return optax.GradientTransformation(init, update)
