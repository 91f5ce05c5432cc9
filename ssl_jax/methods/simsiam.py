"""SimSiam: two views of one image should agree (Chen and He, "Exploring Simple Siamese Representation Learning", 2020).

arXiv 2011.10566. The maths is `SimSiam.loss`; everything else is bookkeeping.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from ssl_jax import losses, metrics, optim
from ssl_jax.types import Batch, Export, Metrics, TrainState, UsageError


@dataclasses.dataclass(frozen=True)
class SimSiam:
    """The method with its three networks.

    Batches hold `view_1` and `view_2`, float32 [b, h, w, c], two augmentations of the same images in the same order.
    All networks share one optimiser, `opt["all"]`, over `params["encoder" | "projector" | "predictor"]`; whether the
    predictor's rate decays is the optimiser's business (`optim.sgd(constant_rate=("predictor",))`).

    Attributes:
        encoder: images [b, h, w, c] to features [b, d].
        projector: features to projections z.
        predictor: projections to predictions p of the other view's projection.
        optimizer: updates every network.
        stop_gradient: False only for the paper's ablation (section 4.1), which collapses.
        train_predictor: False only for the paper's ablation (section 4.2), whose predictor stays as it began and whose
            training does not converge.
    """

    encoder: nn.Module
    projector: nn.Module
    predictor: nn.Module
    optimizer: optim.Optimizer
    stop_gradient: bool = True
    train_predictor: bool = True

    def init(self, key: jax.Array, spec: Mapping[str, jax.ShapeDtypeStruct]) -> TrainState:
        """Fresh networks; `spec["view_1"]` gives the shape of one batch of views.

        Raises:
            UsageError: for a predictor whose output is not as wide as the projector's.
        """
        keys = dict(zip(("encoder", "projector", "predictor"), jax.random.split(key, 3), strict=True))
        # Two images suffice: parameters do not depend on the batch size.
        flowing = jnp.zeros((2, *spec["view_1"].shape[1:]), spec["view_1"].dtype)
        params, stats, widths = {}, {}, {}
        for name, key in keys.items():
            network = getattr(self, name)
            variables = network.init(key, flowing, train=False)
            # A network may have no batch norm, and `NoPredictor` has nothing at all.
            params[name] = variables.get("params", {})
            stats[name] = variables.get("batch_stats", {})
            flowing = network.apply(variables, flowing, train=False)
            widths[name] = flowing.shape[-1]
        if widths["predictor"] != widths["projector"]:
            raise UsageError(
                f"the predictor gives {widths['predictor']} numbers and the projector {widths['projector']}: "
                "set `output` of both alike"
            )
        opt = {"all": self.optimizer.init(params)}
        return TrainState(step=jnp.zeros([], jnp.int32), params=params, stats=stats, opt=opt, memory={})

    def loss(self, params: Any, stats: Any, view_1: jax.Array, view_2: jax.Array) -> tuple[jax.Array, tuple[Any, Any]]:
        """The symmetrised loss, equation 2: D(p1, stopgrad(z2)) / 2 + D(p2, stopgrad(z1)) / 2.

        The views go through batch norm one after the other, each normalised by its own statistics, as the authors'
        code calls the encoder twice; one batch of both would be another method.

        Returns:
            The mean over images, scalar in [-1, 1], and (batch statistics after both views, projections of view 1).
        """
        z_1, stats = self._project(params, stats, view_1)
        z_2, stats = self._project(params, stats, view_2)
        p_1, stats = self._apply("predictor", params, stats, z_1)
        p_2, stats = self._apply("predictor", params, stats, z_2)
        stop = jax.lax.stop_gradient if self.stop_gradient else lambda z: z
        per_image = 0.5 * (
            losses.negative_cosine_similarity(p_1, stop(z_2)) + losses.negative_cosine_similarity(p_2, stop(z_1))
        )
        return jnp.mean(per_image), (stats, z_1)

    def step(self, state: TrainState, batch: Batch, key: jax.Array) -> tuple[TrainState, Metrics]:
        """One update of all three networks; `key` is unused, the step draws nothing."""
        del key
        (loss, (stats, z_1)), gradients = jax.value_and_grad(self.loss, has_aux=True)(
            state.params, state.stats, batch["view_1"], batch["view_2"]
        )
        updates, opt = self.optimizer.update(gradients, state.opt["all"], state.params)
        params = optax.apply_updates(state.params, updates)
        if not self.train_predictor:
            params = {**params, "predictor": state.params["predictor"]}
        new = state.replace(step=state.step + 1, params=params, stats=stats, opt={"all": opt})
        return new, {
            "loss": loss,
            "output_deviation": metrics.output_deviation(z_1),
            "gradient_norm": optax.tree.norm(gradients),
            "learning_rate": self.optimizer.learning_rate(state.step),
        }

    @property
    def exports(self) -> Mapping[str, Export]:
        """`features`: encoder output [b, d]; `output`: projection z [b, d]; both in evaluation mode."""
        return {"features": self._features, "output": self._output}

    def _features(self, state, images):
        return self.encoder.apply(self._variables("encoder", state.params, state.stats), images, train=False)

    def _output(self, state, images):
        variables = self._variables("projector", state.params, state.stats)
        return self.projector.apply(variables, self._features(state, images), train=False)

    def _project(self, params, stats, view):
        features, stats = self._apply("encoder", params, stats, view)
        return self._apply("projector", params, stats, features)

    def _apply(self, name, params, stats, inputs):
        variables = self._variables(name, params, stats)
        outputs, changed = getattr(self, name).apply(variables, inputs, train=True, mutable=["batch_stats"])
        return outputs, {**stats, name: changed["batch_stats"] if stats[name] else {}}

    def _variables(self, name, params, stats):
        return {"params": params[name], "batch_stats": stats[name]}
