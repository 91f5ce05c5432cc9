"""A training step without its updates, and without its gradients as well: what a benchmark takes a step apart by."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ssl_jax.optim import Optimizer


def gradient(method: Any) -> Callable[..., Any]:
    """The step of a method up to its gradients, to be jit-compiled.

    Takes what `method.step` takes and answers with the step's metrics, its gradients in the shape of `state.opt`, the
    new statistics and memory; what moves no parameter but follows them, as averages do, is left out.
    """
    plain = {
        field.name: value._replace(update=_kept)
        for field in dataclasses.fields(method)
        if isinstance(value := getattr(method, field.name), Optimizer)
    }
    if getattr(method, "average", None) is not None:
        plain["average"] = None
    without_updates = dataclasses.replace(method, **plain)

    def call(state, batch, key):
        after, metrics = without_updates.step(state, batch, key)
        return metrics, after.opt, after.stats, after.memory

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


def _kept(gradients, state, params):
    """An optimiser's update that moves nothing; the gradients stand for its state, so that they are computed."""
    del state
    return jax.tree.map(jnp.zeros_like, params), gradients
