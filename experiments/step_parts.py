"""A training step without its updates, and without its gradients as well: what a benchmark takes a step apart by."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ssl_jax.optim import Optimizer
from ssl_jax.types import UsageError


def gradient(method: Any) -> Callable[..., Any]:
    """The step of a method up to its gradients, to be jit-compiled.

    Takes what `method.step` takes, of which it needs no `state.opt`, and answers with the step's metrics, the gradients
    of each update in their order, and the new statistics and memory. No update moves anything, so that later ones of
    the same step see the parameters that the first saw.

    Raises:
        UsageError: when traced, for a method that asks none of its `Optimizer` fields for an update.
    """
    fields = {field.name: getattr(method, field.name) for field in dataclasses.fields(method)}

    def call(state, batch, key):
        found = []

        def keep(gradients, optimizer_state, params):
            found.append(gradients)
            return jax.tree.map(jnp.zeros_like, params), optimizer_state

        still = {name: value._replace(update=keep) for name, value in fields.items() if isinstance(value, Optimizer)}
        after, metrics = dataclasses.replace(method, **still).step(state, batch, key)
        if not found:
            raise UsageError(f"{type(method).__name__} makes its optimiser anew, so its step is not taken apart")
        return metrics, found, after.stats, after.memory

    return call


def forward(method: Any) -> Callable[..., Any]:
    """The step of a method up to its losses, to be jit-compiled: the metrics, statistics and memory of `gradient`.

    Nothing of that needs a gradient of parameters but metrics of gradients, which are left out; what then nobody asks
    for is not compiled. A loss that is made of gradients itself, as a gradient penalty is, keeps those.
    """
    up_to_gradients = gradient(method)

    def call(state, batch, key):
        metrics, _, *rest = up_to_gradients(state, batch, key)
        return {name: value for name, value in metrics.items() if not name.startswith("gradient")}, *rest

    return call
