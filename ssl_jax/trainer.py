"""A method compiled for a mesh: what the loop calls, an evaluator asks and a benchmark times."""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax import mesh as meshes
from ssl_jax import rng
from ssl_jax.types import Batch, Graft, Method, TrainState


class Trainer:
    """The compiled functions of one method.

    Attributes:
        state_spec: the state as ShapeDtypeStructs with shardings.
        metric_names: what the entries of the metrics array are, in order.
        step: (state, batch) to (state, metrics float32 [m]); the state is donated, so the old one is void afterwards.
        preprocess: (batch, step) to what the method takes.
        is_finite: whether every number of a state is finite, a bool scalar.
        exports: the method's exports as `types.Evaluator` describes them.

    Raises:
        UsageError: for networks to begin with that do not fit.
    """

    def __init__(
        self,
        method: Method,
        preprocess: Callable[[Batch, jax.Array], Batch],
        feed_spec: Mapping[str, jax.ShapeDtypeStruct],
        *,
        seed: int,
        mesh: jax.sharding.Mesh,
        graft: Graft | None = None,
    ):
        everywhere, split = meshes.replicated(mesh), meshes.split(mesh)
        self._mesh = mesh
        spec = jax.eval_shape(preprocess, feed_spec, rng.stream(seed, "preprocess"))
        init = functools.partial(method.init, rng.stream(seed, "init"), spec)
        state_spec = jax.eval_shape(init)
        lies = meshes.state_shardings(mesh, state_spec)
        self._init = jax.jit(init, out_shardings=lies)
        self.state_spec = jax.tree.map(
            lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state_spec, lies
        )

        self._grafted = {} if graft is None else graft(self.state_spec)

        def whole_step(state, batch):
            prepared = preprocess(batch, rng.stream(seed, "preprocess", state.step))
            return method.step(state, prepared, rng.stream(seed, "method", state.step))

        self.metric_names = tuple(sorted(jax.eval_shape(whole_step, state_spec, feed_spec)[1]))

        def step(state, batch):
            # Divided parameters are not gathered here: XLA gathers them where it needs them, or activations where these
            # are smaller. On 8 devices, SimSiam with a ResNet-18 of quarter width and 64 images, a device then sends
            # 21 MB a step instead of 127 and takes 50 MB instead of 138; at full width and 512 images it sends 309 MB,
            # where gathering first would take about 330 by count.
            state, metrics = whole_step(state, batch)
            # One small array, so that reading all metrics is one transfer.
            return state, jnp.stack([metrics[name].astype(jnp.float32) for name in self.metric_names])

        self.step = jax.jit(
            step,
            in_shardings=(lies, split),
            out_shardings=(lies, everywhere),
            donate_argnums=0,  # the new state takes the old one's memory
        )
        self.preprocess = jax.jit(
            lambda batch, step: preprocess(batch, rng.stream(seed, "preprocess", step)),
            in_shardings=(split, everywhere),
            out_shardings=split,
        )
        self.is_finite = jax.jit(_is_finite, out_shardings=everywhere)
        self.exports = compiled_exports(method, mesh)

    def untrained(self) -> TrainState:
        """The state that the run begins with, networks taken over from elsewhere included."""
        state = self._init()

        def place(array, spec):
            return jax.make_array_from_callback(spec.shape, spec.sharding, np.asarray(array).__getitem__)

        taken = {
            kind: {
                name: jax.tree.map(place, tree, getattr(self.state_spec, kind)[name]) for name, tree in trees.items()
            }
            for kind, trees in self._grafted.items()
        }
        return state.replace(**{kind: {**getattr(state, kind), **networks} for kind, networks in taken.items()})


def compiled_exports(method: Method, mesh: jax.sharding.Mesh) -> dict[str, Callable[..., np.ndarray]]:
    """The method's exports as `types.Evaluator` describes them: host arrays in and out, compiled once each."""

    @functools.cache
    def compiled(name, preprocess):
        export = method.exports[name]
        return jax.jit(
            lambda state, inputs: export(state, preprocess(inputs)),
            in_shardings=(None, meshes.split(mesh)),  # the state lies as it is given
            out_shardings=meshes.replicated(mesh),
        )

    def call(name, state, inputs, preprocess):
        count = len(jax.tree.leaves(inputs)[0])
        padding = -count % mesh.devices.size
        padded = jax.tree.map(lambda array: np.pad(array, [(0, padding)] + [(0, 0)] * (array.ndim - 1)), inputs)
        return np.asarray(compiled(name, preprocess)(state, meshes.put(padded, mesh)))[:count]

    return {name: functools.partial(call, name) for name in method.exports}


def _is_finite(state):
    floats = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in floats]))
