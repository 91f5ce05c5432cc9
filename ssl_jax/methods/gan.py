"""Generative adversarial networks: one network makes images, the other tells them from real ones.

Goodfellow et al. 2014 (arXiv 1406.2661). From DCGAN to R3GAN the recipes differ in losses, penalties, networks and
rates, all of them the config's; the contest itself is `GAN.step`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from ssl_jax import losses, optim, rng
from ssl_jax.diff_augment import DiffAugment
from ssl_jax.moving_average import MovingAverage
from ssl_jax.regularizers import GradientPenalty
from ssl_jax.types import Batch, Export, Metrics, TrainState, UsageError

Labels = jax.Array | None


@dataclasses.dataclass(frozen=True)
class GAN:
    """The contest of a generator and a discriminator.

    Batches hold `image`, float32 [b, ...] in [-1, 1], and with `classes` also `label`, int32 [b] in 0..k-1. A step is
    `discriminator_steps` updates of the discriminator, each on its own share of the batch (rows i, i + n, i + 2n, ...
    for update i of n) against as many fresh images, then one update of the generator with as many again.
    Networks are `params["generator" | "discriminator"]`, with `average` also `params["generator_average"]`; the
    optimisers `opt["generator" | "discriminator"]`.

    Both networks run in training mode throughout; each one's batch statistics move in its own updates alone. Where the
    discriminator keeps no statistics, real and generated images go through it in one pass, else in two, real first.

    Attributes:
        generator: latents [b, latent] and labels to images [b, ...].
        discriminator: images and labels to logits [b].
        generator_optimizer, discriminator_optimizer: their rates may differ (two time-scales).
        loss: see `losses.discriminator_loss`.
        latent: width of the latent vectors.
        latent_law: "normal", or "uniform" in [-1, 1] as in the DCGAN paper.
        classes: how many classes images are made and judged by; None for none. Generated images take the labels of
            their share of the batch.
        discriminator_steps: updates of the discriminator in a step.
        regularizer: a penalty on the discriminator's slope; None for none. It is taken with respect to the images
            before `augment`.
        average: the moving average to draw samples from; None draws from the generator itself.
        augment: random changes of all that the discriminator sees; None for none.

    Raises:
        UsageError: for numbers below 1, an unknown loss, networks made for other classes, or an optimiser whose
            schedules count other updates than a step makes.
    """

    generator: nn.Module
    discriminator: nn.Module
    generator_optimizer: optim.Optimizer
    discriminator_optimizer: optim.Optimizer
    loss: losses.Adversarial
    latent: int = 128
    latent_law: Literal["normal", "uniform"] = "normal"
    classes: int | None = None
    discriminator_steps: int = 1
    regularizer: GradientPenalty | None = None
    average: MovingAverage | None = None
    augment: DiffAugment | None = None

    def __post_init__(self):
        if self.loss not in get_args(losses.Adversarial):
            raise UsageError(f"loss={self.loss!r} is none of {', '.join(get_args(losses.Adversarial))}")
        for name in ("latent", "discriminator_steps"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}={getattr(self, name)}: it must be at least 1")
        for name, calls in (("generator", 1), ("discriminator", self.discriminator_steps)):
            follows = getattr(self, f"{name}_optimizer").updates_per_step
            if follows not in (None, calls):
                raise UsageError(
                    f"{name}_optimizer.updates_per_step={follows}, but a step updates the {name} {calls} times: set it "
                    f"to {calls}, as optim.scheduled_adam can, or its schedules run at another pace"
                )
        for name in ("generator", "discriminator"):
            theirs = getattr(self, name).classes
            if theirs != self.classes:
                raise UsageError(f"classes={self.classes}, but {name}.classes={theirs}: set both alike")

    def init(self, key: jax.Array, spec: Mapping[str, jax.ShapeDtypeStruct]) -> TrainState:
        """Fresh networks; `spec["image"]` gives the shape of one batch.

        Raises:
            UsageError: for images of another shape than the generator makes or the discriminator takes, a batch that
                `discriminator_steps` does not divide, and missing labels.
        """
        batch, *shape = spec["image"].shape
        if self.classes is not None and "label" not in spec:
            raise UsageError(f"classes={self.classes}, but the batches hold no label: {', '.join(sorted(spec))}")
        if batch % self.discriminator_steps:
            raise UsageError(
                f"a batch of {batch} images is not divided by discriminator_steps={self.discriminator_steps}: "
                f"take {self.discriminator_steps * max(1, batch // self.discriminator_steps)}"
            )
        # Two images suffice: parameters do not depend on the batch size.
        labels = None if self.classes is None else jnp.zeros(2, jnp.int32)
        latents = jnp.zeros((2, self.latent), spec["image"].dtype)
        made = self.generator.init(rng.child(key, "generator"), latents, labels, train=False)
        images = jax.eval_shape(lambda: self.generator.apply(made, latents, labels, train=False))
        if list(images.shape[1:]) != shape:
            sizes = ["x".join(map(str, each)) for each in (images.shape[1:], shape)]
            raise UsageError(
                f"the generator makes images of {sizes[0]} and the data are {sizes[1]}: set generator.size_px and "
                "image_channels as the data are, or resize them in preprocess"
            )
        judged = self.discriminator.init(
            rng.child(key, "discriminator"), jnp.zeros((2, *shape), spec["image"].dtype), labels, train=False
        )
        params = {"generator": made["params"], "discriminator": judged["params"]}
        stats = {"generator": made.get("batch_stats", {}), "discriminator": judged.get("batch_stats", {})}
        opt = {
            "generator": self.generator_optimizer.init(params["generator"]),
            "discriminator": self.discriminator_optimizer.init(params["discriminator"]),
        }
        if self.average is not None:
            for tree in (params, stats):
                # Copied, because the state is donated and two entries may not share memory.
                tree["generator_average"] = jax.tree.map(jnp.copy, tree["generator"])
        return TrainState(step=jnp.zeros([], jnp.int32), params=params, stats=stats, opt=opt, memory={})

    def step(self, state: TrainState, batch: Batch, key: jax.Array) -> tuple[TrainState, Metrics]:
        """`discriminator_steps` updates of the discriminator, then one of the generator and of its average."""
        told = []
        for update in range(self.discriminator_steps):
            real = self._share(batch, update)
            state, metrics = self.discriminator_step(state, real, rng.child(key, "discriminator", update), update)
            told.append(metrics)
        metrics = jax.tree.map(lambda *values: jnp.mean(jnp.stack(values)), *told)
        state, generator_metrics = self.generator_step(state, real, rng.child(key, "generator"))
        rates = {
            "generator_rate": self.generator_optimizer.learning_rate(state.step),
            "discriminator_rate": self.discriminator_optimizer.learning_rate(state.step),
        }
        state = state.replace(step=state.step + 1)
        everything = {**metrics, **generator_metrics, **rates}
        return state, {name: value.astype(jnp.float32) for name, value in everything.items()}

    def discriminator_step(
        self, state: TrainState, batch: Batch, key: jax.Array, update: int = 0
    ) -> tuple[TrainState, Metrics]:
        """Update number `update` of the discriminator in this step, on a batch of its own; nothing else moves."""
        real, labels = batch["image"], self._labels(batch)
        params, stats = state.params["discriminator"], state.stats["discriminator"]
        latents = self.draw(rng.child(key, "latent"), len(real), real.dtype)
        fake, _ = self._make(state.params["generator"], state.stats["generator"], latents, labels)
        seen = rng.child(key, "augment")

        def loss(params):
            (real_logits, fake_logits), after = self._judge(params, stats, (real, fake), labels, seen, state.step)
            value = jnp.mean(losses.discriminator_loss(self.loss, real_logits, fake_logits))
            return value, (after, jnp.mean(real_logits), jnp.mean(fake_logits))

        (value, (after, real_logit, fake_logit)), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        metrics = {"discriminator_loss": value, "real_logit": real_logit, "fake_logit": fake_logit}
        if self.regularizer is not None:
            penalty, slopes = self._penalty(params, stats, real, fake, labels, key, state.step, update)
            gradients = jax.tree.map(jnp.add, gradients, slopes)
            metrics["penalty"] = penalty
        updates, opt = self.discriminator_optimizer.update(gradients, state.opt["discriminator"], params)
        return _replaced(state, "discriminator", optax.apply_updates(params, updates), after, opt), metrics

    def generator_step(self, state: TrainState, batch: Batch, key: jax.Array) -> tuple[TrainState, Metrics]:
        """The generator's update and its average's; the discriminator stays as it is."""
        real, labels = batch["image"], self._labels(batch)
        params, stats = state.params["generator"], state.stats["generator"]
        latents = self.draw(rng.child(key, "latent"), len(real), real.dtype)
        seen = rng.child(key, "augment")

        def loss(params):
            fake, after = self._make(params, stats, latents, labels)
            groups = (real, fake) if losses.needs_real(self.loss) else (fake,)
            logits, _ = self._judge(
                state.params["discriminator"], state.stats["discriminator"], groups, labels, seen, state.step
            )
            return jnp.mean(losses.generator_loss(self.loss, logits[0], logits[-1])), after

        (value, after), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt = self.generator_optimizer.update(gradients, state.opt["generator"], params)
        state = _replaced(state, "generator", optax.apply_updates(params, updates), after, opt)
        if self.average is not None:

            def averaged(tree):
                average = self.average.updated(tree["generator_average"], tree["generator"], state.step)
                return {**tree, "generator_average": average}

            state = state.replace(params=averaged(state.params), stats=averaged(state.stats))
        return state, {"generator_loss": value}

    def draw(self, key: jax.Array, count: int, dtype: jnp.dtype = jnp.float32) -> jax.Array:
        """Latents [count, latent] of the method's law."""
        if self.latent_law == "uniform":
            return jax.random.uniform(key, (count, self.latent), dtype, -1.0, 1.0)
        return jax.random.normal(key, (count, self.latent), dtype)

    @property
    def exports(self) -> Mapping[str, Export]:
        """What others may ask, in evaluation mode, of the averaged generator where there is one.

        - `sample`: int32 [b, 2], a seed and a number each, to images [b, ...]: the image of a seed and a number is
          always the same, whatever else is asked for. With classes, image number i shows class i modulo k.
        - `generate`: {"latent": [b, latent]} and with classes "label" int32 [b] to images [b, ...].
        - `discriminate`: {"image": [b, ...]} and with classes "label" to logits [b].
        """
        return {"sample": self._sample, "generate": self._generate, "discriminate": self._discriminate}

    def latents_of(self, tickets: jax.Array) -> dict[str, jax.Array]:
        """What `sample` hands to `generate` for seeds and numbers, int32 [b, 2]."""

        def one(ticket):
            return self.draw(rng.stream(ticket[0], "sample", ticket[1]), 1).reshape(self.latent)

        inputs = {"latent": jax.vmap(one)(tickets)}
        return inputs if self.classes is None else {**inputs, "label": tickets[:, 1] % self.classes}

    def _sample(self, state, tickets):
        return self._generate(state, self.latents_of(tickets))

    def _generate(self, state, inputs):
        name = "generator" if self.average is None else "generator_average"
        variables = {"params": state.params[name], "batch_stats": state.stats[name]}
        return self.generator.apply(variables, inputs["latent"], self._labels(inputs), train=False)

    def _discriminate(self, state, inputs):
        variables = {"params": state.params["discriminator"], "batch_stats": state.stats["discriminator"]}
        return self.discriminator.apply(variables, inputs["image"], self._labels(inputs), train=False)

    def _share(self, batch, update):
        # Strided, so that every device keeps rows that it already holds.
        return {name: array[update :: self.discriminator_steps] for name, array in batch.items()}

    def _labels(self, batch) -> Labels:
        if self.classes is not None and "label" not in batch:
            raise UsageError(f"classes={self.classes}: give a label with every image (evaluators.samples: set classes)")
        return None if self.classes is None else batch["label"]

    def _make(self, params, stats, latents, labels):
        variables = {"params": params, "batch_stats": stats}
        images, changed = self.generator.apply(variables, latents, labels, train=True, mutable=["batch_stats"])
        return images, changed["batch_stats"] if stats else {}

    def _judge(
        self,
        params: Any,
        stats: Any,
        groups: Sequence[jax.Array],
        labels: Labels,
        key: jax.Array,
        step: jax.Array,
        network: nn.Module | None = None,
    ) -> tuple[list[jax.Array], Any]:
        """Logits [b] of each group of augmented images [b, ...], and the statistics after all of them."""
        network = self.discriminator if network is None else network
        if self.augment is not None:
            groups = [self.augment(images, rng.child(key, "group", i), step) for i, images in enumerate(groups)]
        if not stats:
            everyone = None if labels is None else jnp.concatenate([labels] * len(groups))
            logits = network.apply({"params": params}, jnp.concatenate(groups), everyone, train=True)
            return jnp.split(logits, len(groups)), stats
        logits = []
        for images in groups:
            variables = {"params": params, "batch_stats": stats}
            found, changed = network.apply(variables, images, labels, train=True, mutable=["batch_stats"])
            logits.append(found)
            stats = changed["batch_stats"]
        return logits, stats

    def _penalty(self, params, stats, real, fake, labels, key, step, update):
        """The penalty as it counts in this update, and its gradient."""
        # bfloat16 has too few digits for a slope's slope. With float32 layers XLA merges this pass and the loss's.
        dtype = "float32" if self.discriminator.dtype == "bfloat16" else self.discriminator.dtype
        exact = self.discriminator.clone(dtype=dtype)
        seen = rng.child(key, "augment")

        def penalty(params):
            def judge(groups):
                return self._judge(params, stats, groups, labels, seen, step, exact)[0]

            values = self.regularizer(judge, real, fake, rng.child(key, "between"), step)
            return self.regularizer.every * jnp.mean(values)

        if self.regularizer.every == 1:
            return jax.value_and_grad(penalty)(params)
        due = (step * self.discriminator_steps + update) % self.regularizer.every == 0
        nothing = jax.tree.map(jnp.zeros_like, jax.eval_shape(jax.value_and_grad(penalty), params))
        return jax.lax.cond(due, jax.value_and_grad(penalty), lambda _: nothing, params)


def _replaced(state, name, params, stats, opt):
    return state.replace(
        params={**state.params, name: params}, stats={**state.stats, name: stats}, opt={**state.opt, name: opt}
    )
