"""Supervised classification: a head on an encoder; linear evaluation and fine-tuning differ in the word `train`."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from ssl_jax import losses, metrics, optim
from ssl_jax.types import Batch, Export, Metrics, Steps, TrainState, UsageError


@dataclasses.dataclass(frozen=True)
class Classify:
    """Softmax cross-entropy on an encoder's features.

    Batches hold `image`, float32 [b, h, w, c], and `label`, int32 [b] in 0..k-1. One optimiser, `opt["all"]`, updates
    what is trained. The encoder's weights come from wherever the run begins (`graft`), random ones without.

    Attributes:
        encoder: images [b, h, w, c] to features [b, d]. For `unfreeze` and `layer_decay` it has `stages`, the names of
            its parameter groups from the images up (see `models.convnet.ConvNet.stages`).
        head: features to logits [b, k].
        optimizer: updates what `train` says.
        train: "head" is linear evaluation: the encoder runs in evaluation mode and gets neither gradient nor decay.
            "all" is fine-tuning.
        encoder_rate: what the encoder's learning rate is multiplied by.
        layer_decay: what it is multiplied by again for each stage below the top one (ELECTRA's and BEiT's layer-wise
            decay); 1 treats all stages alike.
        unfreeze: when each stage starts, the top one first: with ("20 %", "40 %") the head trains alone for a fifth of
            the run, then the top stage joins, then the next; stages beyond those listed start with the last one. ()
            trains all from the start (Howard and Ruder 2018, arXiv 1801.06146, "gradual unfreezing").
        batch_norm: of the encoder when `train` is "all": "batch" normalises by the batch and updates the running
            statistics; "running" normalises by the running ones and leaves them alone, which small or repeated batches
            want and `unfreeze` needs, as a resting stage must not move.

    Raises:
        UsageError: for rates below 0, times of unfreezing that do not ascend, more of them than stages, `unfreeze` with
            `train` "head" or batch_norm "batch".
    """

    encoder: nn.Module
    head: nn.Module
    optimizer: optim.Optimizer
    train: Literal["head", "all"]
    encoder_rate: float = 0.1
    layer_decay: float = 1.0
    unfreeze: tuple[Steps, ...] = ()
    batch_norm: Literal["batch", "running"] = "running"

    def __post_init__(self):
        if self.encoder_rate < 0 or self.layer_decay < 0:
            raise UsageError(
                f"encoder_rate={self.encoder_rate} and layer_decay={self.layer_decay} multiply learning rates: "
                "give numbers of at least 0"
            )
        if (self.unfreeze or self.layer_decay != 1) and not hasattr(self.encoder, "stages"):
            raise UsageError(
                f"unfreeze and layer_decay need an encoder with `stages`, as models.convnet.ConvNet has them; "
                f"{type(self.encoder).__name__} has none"
            )
        if not self.unfreeze:
            return
        if self.train == "head" or self.batch_norm == "batch":
            raise UsageError(
                f'unfreeze={self.unfreeze} goes with train="all" and batch_norm="running", '
                f"not with train={self.train!r} and batch_norm={self.batch_norm!r}"
            )
        if len(self.unfreeze) > len(self.encoder.stages) or list(self.unfreeze) != sorted(self.unfreeze):
            raise UsageError(
                f"unfreeze={self.unfreeze}: give ascending times, at most one for each of the encoder's "
                f"{len(self.encoder.stages)} stages"
            )

    def init(self, key: jax.Array, spec: Mapping[str, jax.ShapeDtypeStruct]) -> TrainState:
        """A fresh encoder and head; `spec["image"]` gives the shape of one batch."""
        encoder_key, head_key = jax.random.split(key)
        image = jnp.zeros((2, *spec["image"].shape[1:]), spec["image"].dtype)
        encoder = self.encoder.init(encoder_key, image, train=False)
        head = self.head.init(head_key, self.encoder.apply(encoder, image, train=False), train=False)
        networks = {"encoder": encoder, "head": head}
        params = {name: variables["params"] for name, variables in networks.items()}
        stats = {name: variables.get("batch_stats", {}) for name, variables in networks.items()}
        opt = {"all": self._paced().init(self._trained(params))}
        return TrainState(step=jnp.zeros([], jnp.int32), params=params, stats=stats, opt=opt, memory={})

    def loss(self, trained: Any, state: TrainState, batch: Batch) -> tuple[jax.Array, tuple[Any, jax.Array]]:
        """The mean cross-entropy, and (batch statistics after the batch, logits [b, k]).

        Args:
            trained: the parameters that are trained, by network; the others are the state's.
            state: see above.
            batch: `image` and `label`.
        """
        params = {**state.params, **trained}
        moving = self.train == "all" and self.batch_norm == "batch"
        features, encoder_stats = self._apply("encoder", params, state.stats, batch["image"], train=moving)
        logits, head_stats = self._apply("head", params, state.stats, features, train=True)
        loss = jnp.mean(losses.cross_entropy(logits, batch["label"]))
        return loss, ({"encoder": encoder_stats, "head": head_stats}, logits)

    def step(self, state: TrainState, batch: Batch, key: jax.Array) -> tuple[TrainState, Metrics]:
        """One update of what is trained; `key` is unused, the step draws nothing."""
        del key
        trained = self._trained(state.params)
        (loss, (stats, logits)), gradients = jax.value_and_grad(self.loss, has_aux=True)(trained, state, batch)
        updates, opt = self._paced().update(gradients, state.opt["all"], trained)
        params = {**state.params, **optax.apply_updates(trained, updates)}
        new = state.replace(step=state.step + 1, params=params, stats=stats, opt={"all": opt})
        return new, {
            "loss": loss,
            "accuracy": metrics.accuracy(logits, batch["label"]).compute(),
            "gradient_norm": optax.tree.norm(gradients),
            "learning_rate": self.optimizer.learning_rate(state.step),
        }

    @property
    def exports(self) -> Mapping[str, Export]:
        """`features`: encoder output [b, d]; `logits` [b, k]; both in evaluation mode."""
        return {"features": self._features, "logits": self._logits}

    def _features(self, state, images):
        return self._apply("encoder", state.params, state.stats, images, train=False)[0]

    def _logits(self, state, images):
        return self._apply("head", state.params, state.stats, self._features(state, images), train=False)[0]

    def _apply(self, name, params, stats, inputs, *, train):
        variables = {"params": params[name], "batch_stats": stats[name]}
        network = getattr(self, name)
        if not train:
            return network.apply(variables, inputs, train=False), stats[name]
        outputs, changed = network.apply(variables, inputs, train=True, mutable=["batch_stats"])
        return outputs, changed["batch_stats"] if stats[name] else {}

    def _trained(self, params):
        return params if self.train == "all" else {"head": params["head"]}

    def _paced(self):
        """The optimiser with the rate and the start of every parameter; paths begin with the network's name."""
        if self.train == "head":
            return self.optimizer
        stages = self.encoder.stages if self.unfreeze or self.layer_decay != 1 else ()
        depth_of = {group: depth for depth, groups in enumerate(reversed(stages)) for group in groups}
        starts = self.unfreeze or (0,)

        def depth(path):
            return depth_of[path[1].key] if stages else 0

        def scale_of(path):
            return 1.0 if path[0].key == "head" else self.encoder_rate * self.layer_decay ** depth(path)

        def start_of(path):
            return 0 if path[0].key == "head" else starts[min(depth(path), len(starts) - 1)]

        return optim.by_parameter(self.optimizer, scale_of=scale_of, start_of=start_of)
