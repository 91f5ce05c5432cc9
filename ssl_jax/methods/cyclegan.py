"""CycleGAN: two generators translate between two domains, and what goes there and back must come out as it was.

Zhu et al. 2017 (arXiv 1703.10593). The update is the reference implementation's (junyanz/pytorch-CycleGAN-and-pix2pix,
cycle_gan_model.py), in one function that makes every forward pass once.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from ssl_jax import losses, optim, rng
from ssl_jax.diff_augment import DiffAugment
from ssl_jax.image_pool import ImagePool
from ssl_jax.moving_average import MovingAverage
from ssl_jax.regularizers import GradientPenalty
from ssl_jax.types import Batch, Export, Metrics, TrainState, UsageError

Direction = Literal["ab", "ba"]
DIRECTIONS: tuple[Direction, Direction] = ("ab", "ba")


@dataclasses.dataclass(frozen=True)
class CycleGAN:
    """Two contests, tied by the cycle.

    Batches hold `image_a` and `image_b`, float32 [b, h, w, channels] in [-1, 1], in no relation to each other. The
    generators are `params["generator_ab" | "generator_ba"]`, with `average` also `..._average`; the discriminators
    `params["discriminator_a" | "discriminator_b"]`, each of which judges images of its domain; the optimisers
    `opt["generators" | "discriminators"]`; the pools `memory["pool_a" | "pool_b"]`.

    A step updates both generators at once, then both discriminators. The translations that the generators learned from
    are the ones that go through the pools to the discriminators: made before the update, as in the reference.

    The generators minimise, summed over both directions,
        adversarial + cycle * mean |G_ba(G_ab(a)) - a| + cycle * identity * mean |G_ba(a) - a|,
    each discriminator half of its loss, so that it learns at half the pace. For least squares the adversarial loss is
    mean (D - 1)^2, without a factor of one half.

    Attributes:
        generator: images [b, h, w, c] to images; each direction gets its own, with the channels of its target.
        discriminator: images to logits [b, h', w'].
        generator_optimizer, discriminator_optimizer: each takes one step per update.
        loss: see `losses.discriminator_loss`.
        cycle_a, cycle_b: weights of the way from A to B and back, and of the other (lambda_A and lambda_B).
        identity: weight of the identity loss as a share of the cycle's; 0 leaves its passes out. In the reference 0.5.
        pool: of earlier translations.
        channels_a, channels_b: of the images.
        regularizer: a penalty on the discriminators' slope; None for none. The logit that is differentiated is the mean
            over the patches.
        average: the moving average of the generators that translates; None translates with the generators themselves.
        augment: random changes of all that the discriminators see; None for none.

    Raises:
        UsageError: for negative weights, an unknown loss, an identity loss between unlike channels, or an optimiser
            whose schedules count other updates than a step makes.
    """

    generator: nn.Module
    discriminator: nn.Module
    generator_optimizer: optim.Optimizer
    discriminator_optimizer: optim.Optimizer
    loss: losses.Adversarial = "least_squares"
    cycle_a: float = 10.0
    cycle_b: float = 10.0
    identity: float = 0.5
    pool: ImagePool = dataclasses.field(default_factory=ImagePool)
    channels_a: int = 3
    channels_b: int = 3
    regularizer: GradientPenalty | None = None
    average: MovingAverage | None = None
    augment: DiffAugment | None = None

    def __post_init__(self):
        if self.loss not in get_args(losses.Adversarial):
            raise UsageError(f"loss={self.loss!r} is none of {', '.join(get_args(losses.Adversarial))}")
        for name in ("cycle_a", "cycle_b", "identity"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name}={getattr(self, name)}: a weight is at least 0")
        if self.identity and self.channels_a != self.channels_b:
            raise UsageError(
                f"identity={self.identity}, but A has {self.channels_a} channel(s) and B {self.channels_b}: the "
                "identity loss hands each generator images of its target, so set identity to 0"
            )
        for name in ("generator", "discriminator"):
            if getattr(self, f"{name}_optimizer").updates_per_step not in (None, 1):
                raise UsageError(f"{name}_optimizer: a step makes one update, so set updates_per_step to 1")

    def network(self, direction: Direction) -> nn.Module:
        """The generator of a direction: its channels are those of the target."""
        return self.generator.clone(image_channels={"ab": self.channels_b, "ba": self.channels_a}[direction])

    def init(self, key: jax.Array, spec: Mapping[str, jax.ShapeDtypeStruct]) -> TrainState:
        """Fresh networks and empty pools; `spec["image_a"]` and `spec["image_b"]` give the shapes of one batch.

        Raises:
            UsageError: for batches without the two, other channels than the method's, images that the networks do not
                take, and a batch that the pools do not divide.
        """
        if not {"image_a", "image_b"} <= spec.keys():
            raise UsageError(
                f"CycleGAN takes image_a and image_b, and the batches hold {', '.join(sorted(spec))}: "
                'give data.unpaired as `data` and "augment.Unpaired" as `preprocess`'
            )
        for domain in "ab":
            there, expected = spec[f"image_{domain}"].shape[-1], getattr(self, f"channels_{domain}")
            if there != expected:
                raise UsageError(
                    f"the images of {domain.upper()} have {there} channel(s) and channels_{domain}={expected}: set it "
                    "as the data are"
                )
        sizes = [spec[f"image_{domain}"].shape[1:3] for domain in "ab"]
        if sizes[0] != sizes[1]:
            raise UsageError(
                f"images of A are {sizes[0]} px (h, w) and of B {sizes[1]}: bring both to one size, by "
                "config.data.load_px or a crop in config.preprocess"
            )
        one = {domain: jnp.zeros((1, *spec[f"image_{domain}"].shape[1:]), jnp.float32) for domain in "ab"}
        params: dict[str, Any] = {}
        for source, target in DIRECTIONS:
            name, network = f"generator_{source}{target}", self.network(source + target)
            params[name] = network.init(rng.child(key, name), one[source])["params"]
            name = f"discriminator_{target}"
            params[name] = self.discriminator.init(rng.child(key, name), one[target])["params"]
        opt = {
            "generators": self.generator_optimizer.init(_generators(params)),
            "discriminators": self.discriminator_optimizer.init(_discriminators(params)),
        }
        if self.average is not None:
            for name in _generators(params):
                # Copied, because the state is donated and two entries may not share memory.
                params[f"{name}_average"] = jax.tree.map(jnp.copy, params[name])
        memory = {}
        for source, target in DIRECTIONS:
            made = jax.eval_shape(
                lambda params, x, d=source + target: self._made(params, d, x), params, spec[f"image_{source}"]
            )
            memory[f"pool_{target}"] = self.pool.empty(made)
        stats = {name: {} for name in params}
        return TrainState(step=jnp.zeros([], jnp.int32), params=params, stats=stats, opt=opt, memory=memory)

    def step(self, state: TrainState, batch: Batch, key: jax.Array) -> tuple[TrainState, Metrics]:
        """One update of both generators, then one of both discriminators."""
        real = {"a": batch["image_a"], "b": batch["image_b"]}
        generators, metrics, fake = self._generators_updated(state, real, key)
        seen, memory = {}, {}
        for domain in "ab":
            pool = f"pool_{domain}"
            memory[pool], seen[domain] = self.pool.exchange(state.memory[pool], fake[domain], rng.child(key, pool))
        discriminators, judged = self._discriminators_updated(state, real, seen, key)
        params = {**state.params, **generators[0], **discriminators[0]}
        if self.average is not None:
            for name, newest in generators[0].items():
                average = f"{name}_average"
                params[average] = self.average.updated(state.params[average], newest, state.step)
        rates = {
            "generator_rate": self.generator_optimizer.learning_rate(state.step),
            "discriminator_rate": self.discriminator_optimizer.learning_rate(state.step),
        }
        opt = {"generators": generators[1], "discriminators": discriminators[1]}
        state = state.replace(step=state.step + 1, params=params, opt=opt, memory=memory)
        return state, {name: value.astype(jnp.float32) for name, value in {**metrics, **judged, **rates}.items()}

    @property
    def exports(self) -> Mapping[str, Export]:
        """What others may ask, of the averaged generators where there are such.

        - `translate_ab`, `translate_ba`: images [b, h, w, c] of the first domain to images of the second;
        - `reconstruct_a`, `reconstruct_b`: images of a domain through the other one and back;
        - `discriminate_a`, `discriminate_b`: images of a domain to logits [b], the mean over the patches.
        """
        return {
            "translate_ab": lambda state, images: self._translated(state, images, "ab"),
            "translate_ba": lambda state, images: self._translated(state, images, "ba"),
            "reconstruct_a": lambda state, images: self._translated(state, self._translated(state, images, "ab"), "ba"),
            "reconstruct_b": lambda state, images: self._translated(state, self._translated(state, images, "ba"), "ab"),
            "discriminate_a": lambda state, images: self._opinion(state.params["discriminator_a"], images),
            "discriminate_b": lambda state, images: self._opinion(state.params["discriminator_b"], images),
        }

    def _generators_updated(self, state, real, key):
        """((params, optimiser state), metrics, translations by domain)."""
        params = _generators(state.params)
        cycle = {"a": self.cycle_a, "b": self.cycle_b}

        def loss(params):
            fake, told = {}, {}
            for source, target in DIRECTIONS:
                direction, images = source + target, real[source]
                if not self.identity:
                    fake[target] = self._made(params, direction, images)
                    continue
                # Instance norm takes each image by itself, so one pass of both gives what two would.
                fake[target], same = _apart(self._made(params, direction, _together([images, real[target]])), 2)
                told[f"identity_{target}"] = jnp.mean(jnp.abs(same - real[target]))
            total = 0.0
            for source, target in DIRECTIONS:
                back = self._made(params, target + source, fake[target])
                told[f"cycle_{source}"] = jnp.mean(jnp.abs(back - real[source]))
                told[f"generator_loss_{source}{target}"] = self._adversarial(
                    state, real[target], fake[target], target, key
                )
                total += told[f"generator_loss_{source}{target}"] + cycle[source] * told[f"cycle_{source}"]
                if self.identity:
                    total += cycle[source] * self.identity * told[f"identity_{source}"]
            return total, (told, fake)

        gradients, (told, fake) = jax.grad(loss, has_aux=True)(params)
        updates, opt = self.generator_optimizer.update(gradients, state.opt["generators"], params)
        return (optax.apply_updates(params, updates), opt), told, fake

    def _discriminators_updated(self, state, real, fake, key):
        """((params, optimiser state), metrics)."""
        params = _discriminators(state.params)

        def loss(params):
            total, told = 0.0, {}
            for domain in "ab":
                own = params[f"discriminator_{domain}"]
                real_logits, fake_logits = self._judged(own, (real[domain], fake[domain]), domain, key, state.step)
                values = losses.discriminator_loss(self.loss, real_logits, fake_logits)
                told[f"discriminator_loss_{domain}"] = 0.5 * self._full * jnp.mean(values)
                told[f"real_logit_{domain}"] = jnp.mean(real_logits)
                told[f"fake_logit_{domain}"] = jnp.mean(fake_logits)
                total += told[f"discriminator_loss_{domain}"]
            return total, told

        gradients, told = jax.grad(loss, has_aux=True)(params)
        if self.regularizer is not None:
            penalties, slopes = self._penalties(params, real, fake, key, state.step)
            gradients, told = jax.tree.map(jnp.add, gradients, slopes), {**told, "penalty": penalties}
        updates, opt = self.discriminator_optimizer.update(gradients, state.opt["discriminators"], params)
        return (optax.apply_updates(params, updates), opt), told

    @property
    def _full(self):
        """What makes a loss of `losses` the whole of it: its least squares are halved."""
        return 2.0 if self.loss == "least_squares" else 1.0

    def _made(self, params, direction, images):
        return self.network(direction).apply({"params": params[f"generator_{direction}"]}, images)

    def _adversarial(self, state, real, fake, domain, key):
        """What the generator that made `fake` is told by the discriminator of its target."""
        groups = (real, fake) if losses.needs_real(self.loss) else (fake,)
        logits = self._judged(state.params[f"discriminator_{domain}"], groups, domain, key, state.step)
        return self._full * jnp.mean(losses.generator_loss(self.loss, logits[0], logits[-1]))

    def _judged(self, params, groups, domain, key, step, network=None):
        """Logits of each group of images [b, h, w, c], one a patch, all in one row."""
        network = self.discriminator if network is None else network
        if self.augment is not None:
            seen = rng.child(key, f"augment_{domain}")
            groups = [self.augment(images, rng.child(seen, "group", i), step) for i, images in enumerate(groups)]
        logits = network.apply({"params": params}, _together(groups))
        return [part.reshape(-1) for part in _apart(logits, len(groups))]

    def _penalties(self, params, real, fake, key, step):
        """The penalty of both domains as it counts in this update, and its gradient."""
        # bfloat16 has too few digits for a slope's slope.
        dtype = "float32" if self.discriminator.dtype == "bfloat16" else self.discriminator.dtype
        exact = self.discriminator.clone(dtype=dtype)

        def penalty(params):
            total = 0.0
            for domain in "ab":
                own = params[f"discriminator_{domain}"]

                def judge(groups, own=own, domain=domain):
                    logits = self._judged(own, groups, domain, key, step, exact)
                    return [
                        each.reshape(len(images), -1).mean(axis=1) for each, images in zip(logits, groups, strict=True)
                    ]

                between = rng.child(key, f"between_{domain}")
                total += jnp.mean(self.regularizer(judge, real[domain], fake[domain], between, step))
            return self.regularizer.every * total

        if self.regularizer.every == 1:
            return jax.value_and_grad(penalty)(params)
        nothing = jax.tree.map(jnp.zeros_like, jax.eval_shape(jax.value_and_grad(penalty), params))
        due = step % self.regularizer.every == 0
        return jax.lax.cond(due, jax.value_and_grad(penalty), lambda _: nothing, params)

    def _translated(self, state, images, direction):
        name = f"generator_{direction}" + ("" if self.average is None else "_average")
        return self.network(direction).apply({"params": state.params[name]}, images)

    def _opinion(self, params, images):
        return self.discriminator.apply({"params": params}, images).mean(axis=(1, 2))


def _generators(params):
    return {f"generator_{direction}": params[f"generator_{direction}"] for direction in DIRECTIONS}


def _discriminators(params):
    return {f"discriminator_{domain}": params[f"discriminator_{domain}"] for domain in "ab"}


def _together(groups):
    """Groups of images [b, ...] as one [n b, ...], rows interleaved, so that every device keeps those it holds."""
    return jnp.stack(groups, axis=1).reshape(-1, *groups[0].shape[1:])


def _apart(images, count):
    """The groups that `_together` made one."""
    images = images.reshape(-1, count, *images.shape[1:])
    return [images[:, i] for i in range(count)]
