"""The contest of two networks: what each update moves, with which draws, and what else the method promises."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import optim, rng, schedules
from ssl_jax.diff_augment import DiffAugment
from ssl_jax.methods.gan import GAN
from ssl_jax.models import dcgan, mlp
from ssl_jax.moving_average import MovingAverage
from ssl_jax.regularizers import GradientPenalty
from ssl_jax.types import UsageError

KEY = jax.random.key(0)
POINT, PICTURE = (2,), (8, 8, 1)
RATE = 0.1


class Through(nn.Module):
    """A generator whose images are its latents times a learned gain."""

    shape: tuple[int, ...] = (2,)
    classes: int | None = None

    @nn.compact
    def __call__(self, latent, label=None, *, train):
        gain = self.param("gain", nn.initializers.ones, (1, *self.shape))
        return latent.reshape(-1, *self.shape) * gain


class Slope(nn.Module):
    """A discriminator that is linear, so that its slope is its weight wherever one looks."""

    shape: tuple[int, ...] = (2,)
    classes: int | None = None
    dtype: str = "float32"

    @nn.compact
    def __call__(self, images, label=None, *, train):
        weight = self.param("weight", nn.initializers.normal(1.0), (1, *self.shape))
        return (images * weight).reshape(len(images), -1).sum(axis=1)


class Named(nn.Module):
    """A generator whose image of a class is that class's number."""

    classes: int = 3

    @nn.compact
    def __call__(self, latent, label, *, train):
        gain = self.param("gain", nn.initializers.ones, (1, 2))
        return label.reshape(-1, 1).astype(latent.dtype) * gain


class Mismatch(nn.Module):
    """A discriminator that answers how far an image is from its class's number."""

    classes: int = 3
    dtype: str = "float32"

    @nn.compact
    def __call__(self, images, label, *, train):
        weight = self.param("weight", nn.initializers.ones, (1, 2))
        return (jnp.abs(images - label.reshape(-1, 1)) * weight).sum(axis=1)


def sgd(rate=RATE):
    """A constant rate and nothing else, so that a move is the gradient; its schedule never comes to anything."""
    return optim.sgd(rate, 256, 10**9, momentum=0.0)._replace(updates_per_step=None)


def adam(**changes):
    # The epsilon keeps Adam from blowing the rounding of a small gradient up to a whole step.
    return optim.scheduled_adam(**{"learning_rate": 0.01, "b1": 0.5, "b2": 0.9, "epsilon": 1e-3, **changes})


def points(**changes):
    """Dense networks for points in the plane."""
    settings = {
        "generator": mlp.Generator(output=2, hidden=(8,), classes=changes.get("classes")),
        "discriminator": mlp.Discriminator(hidden=(8,), classes=changes.get("classes")),
        "generator_optimizer": adam(),
        "discriminator_optimizer": adam(),
        "loss": "non_saturating",
        "latent": 3,
    }
    return GAN(**{**settings, **changes})


def pictures(norm="batch", dtype="float32", **changes):
    """DCGAN's layers for grey images of 8 px."""
    classes = changes.get("classes")
    settings = {
        "generator": dcgan.Generator(size_px=8, image_channels=1, channels=(4,), classes=classes),
        "discriminator": dcgan.Discriminator(channels=(4, 6), norm=norm, classes=classes, dtype=dtype),
        "latent": 4,
    }
    return points(**{**settings, **changes})


def everything(**changes):
    """Pictures with all that a config can switch on."""
    settings = {
        "discriminator_optimizer": adam(b2=schedules.Cosine(0.9, 0.99, 6), updates_per_step=2),
        "classes": 3,
        "discriminator_steps": 2,
        "regularizer": GradientPenalty(r1=schedules.Cosine(2.0, 0.5, 6), every=3),
        "average": MovingAverage(half_life=4, ramp_up=1.0, burn_in=6),
        "augment": DiffAugment(("cutout",), schedules.Linear(0.0, 0.6, 6)),
    }
    return pictures(**{**settings, **changes})


def compiled(function, **options):
    # Without the optimiser, since compilation takes most of the time here.
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0}, **options)


@functools.partial(compiled, static_argnums=(0, 1, 2))
def begin(method, shape, images=6):
    spec = {"image": jax.ShapeDtypeStruct((images, *shape), jnp.float32)}
    return method.init(KEY, {**spec, "label": jax.ShapeDtypeStruct((images,), jnp.int32)})


def batch(shape, number=0, images=6):
    key = rng.child(KEY, "batch", number)
    image = jax.random.uniform(key, (images, *shape), jnp.float32, -1.0, 1.0)
    return {"image": image, "label": jax.random.randint(key, (images,), 0, 3)}


def on_host(tree):
    """A copy that donation leaves alone."""
    return jax.tree.map(lambda leaf: np.array(leaf, copy=True), tree)


def moved(before, after):
    """The parts of a state in which something changed, such as "params/generator"."""
    found = set()
    for kind in ("params", "stats", "opt"):
        for name, tree in getattr(before, kind).items():
            pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(getattr(after, kind)[name]), strict=True)
            if any((np.asarray(a) != np.asarray(b)).any() for a, b in pairs):
                found.add(f"{kind}/{name}")
    return found


def assert_same(found, wanted, tolerance):
    jax.tree_util.tree_map_with_path(
        lambda path, a, b: np.testing.assert_allclose(
            a, b, rtol=tolerance, atol=tolerance, err_msg=jax.tree_util.keystr(path)
        ),
        found,
        wanted,
    )


@pytest.fixture(scope="module")
def history():
    """`everything`, twelve steps of it: host copies of all states, and the metrics; each state is donated."""
    method = everything()
    step = compiled(method.step, donate_argnums=0)
    state = begin(method, PICTURE)
    states, metrics = [on_host(state)], []
    for number in range(12):
        state, told = step(state, batch(PICTURE, number), rng.stream(0, "method", number))
        states.append(on_host(state))
        metrics.append(on_host(told))
    return method, states, metrics


@pytest.fixture(scope="module")
def updates():
    """The updates of `everything` one by one: the discriminator's and the generator's."""
    method = everything()
    return compiled(method.discriminator_step), compiled(method.generator_step)


def test_each_update_moves_its_own_network_and_nothing_else(history, updates):
    before, share = history[1][4], batch(PICTURE, images=3)
    judged, made = (update(before, share, KEY, *more)[0] for update, more in zip(updates, ((0,), ()), strict=True))
    assert moved(before, judged) == {"params/discriminator", "stats/discriminator", "opt/discriminator"}
    own = {f"{kind}/{name}" for kind in ("params", "stats") for name in ("generator", "generator_average")}
    assert moved(before, made) == {*own, "opt/generator"}
    assert int(judged.step) == int(made.step) == 4, "only a whole step counts"


def test_a_step_shares_its_batch_among_the_updates_and_the_generator_comes_last(history, updates):
    _, states, metrics = history
    # The fifth step, whose second update is the tenth and thus penalised.
    state, given, key, told = states[4], batch(PICTURE, 4), rng.stream(0, "method", 4), []
    for update in range(2):
        share = {name: array[update::2] for name, array in given.items()}
        state, judged = updates[0](state, share, rng.child(key, "discriminator", update), update)
        told.append(judged)
    state, made = updates[1](state, share, rng.child(key, "generator"))
    assert_same(states[5], state.replace(step=state.step + 1), 1e-5)
    assert told[0]["penalty"] == 0.0 < told[1]["penalty"]
    for name in told[0]:
        wanted = np.mean([judged[name] for judged in told])
        np.testing.assert_allclose(metrics[4][name], wanted, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(metrics[4]["generator_loss"], made["generator_loss"], rtol=1e-5)


def test_every_parameter_is_reached(history):
    _, states, _ = history
    for path, first in jax.tree_util.tree_flatten_with_path(states[0].params)[0]:
        last = functools.reduce(lambda tree, part: tree[part.key], path, states[-1].params)
        assert (first != last).any(), jax.tree_util.keystr(path)
    assert int(states[-1].step) == 12


def softplus(x):
    return np.log1p(np.exp(x))


LOSSES = {  # of real and generated logits: the discriminator's and the generator's
    "non_saturating": (lambda r, f: softplus(-r) + softplus(f), lambda r, f: softplus(-f)),
    "least_squares": (lambda r, f: (r - 1) ** 2 / 2 + f**2 / 2, lambda r, f: (f - 1) ** 2 / 2),
    "hinge": (lambda r, f: np.maximum(1 - r, 0) + np.maximum(1 + f, 0), lambda r, f: -f),
    "wasserstein": (lambda r, f: f - r, lambda r, f: -f),
    "relativistic": (lambda r, f: softplus(f - r), lambda r, f: softplus(r - f)),
}


def linear(**changes):
    """Images that are latents and a discriminator that is linear: everything can be written out."""
    shape = changes.pop("shape", POINT)
    settings = {
        "generator": Through(shape),
        "discriminator": Slope(shape),
        "generator_optimizer": sgd(),
        "discriminator_optimizer": sgd(),
        "loss": "wasserstein",
        "latent": int(np.prod(shape)),
    }
    return GAN(**{**settings, **changes})


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_are_those_of_the_drawn_images(loss):
    method = linear(loss=loss)
    state, key = begin(method, POINT), jax.random.key(3)
    weight, real = np.asarray(state.params["discriminator"]["weight"][0]), np.asarray(batch(POINT)["image"])
    # Each update draws its own.
    fake = np.asarray(method.draw(rng.child(key, "latent"), 6))
    _, judged = compiled(method.discriminator_step)(state, batch(POINT), key)
    _, made = compiled(method.generator_step)(state, batch(POINT), key)
    values = [each(real @ weight, fake @ weight).mean() for each in LOSSES[loss]]
    np.testing.assert_allclose([judged["discriminator_loss"], made["generator_loss"]], values, rtol=1e-5)
    logits = [(real @ weight).mean(), (fake @ weight).mean()]
    np.testing.assert_allclose([judged["real_logit"], judged["fake_logit"]], logits, rtol=1e-4, atol=1e-6)


def test_every_update_of_every_step_draws_latents_of_its_own():
    still = optim.scheduled_adam(0.0)
    method = linear(discriminator_steps=2, discriminator_optimizer=still, generator_optimizer=still)
    state, drawn = begin(method, POINT, images=8), []
    weight = state.params["discriminator"]["weight"][0]
    for number in range(2):
        key = rng.stream(0, "method", number)
        judged = [method.draw(rng.child(rng.child(key, "discriminator", i), "latent"), 4) for i in range(2)]
        made = method.draw(rng.child(rng.child(key, "generator"), "latent"), 4)
        state, metrics = compiled(method.step)(state, batch(POINT, images=8), key)
        np.testing.assert_allclose(metrics["fake_logit"], (jnp.stack(judged) @ weight).mean(), rtol=1e-4)
        np.testing.assert_allclose(metrics["generator_loss"], -(made @ weight).mean(), rtol=1e-4)
        drawn += [np.asarray(latents) for latents in (*judged, made)]
    rows = np.concatenate(drawn)
    assert len(np.unique(rows, axis=0)) == len(rows) == 2 * 3 * 4


def test_latents_follow_their_law():
    for law, deviation in (("normal", 1.0), ("uniform", 3**-0.5)):
        drawn = np.asarray(points(latent=50, latent_law=law).draw(KEY, 400))
        assert drawn.shape == (400, 50) and abs(drawn.mean()) < 0.02
        np.testing.assert_allclose(drawn.std(), deviation, rtol=0.02)
        assert (np.abs(drawn).max() < 1) == (law == "uniform")


@pytest.mark.parametrize("count", [1, 2])
def test_a_lazy_penalty_comes_every_third_update_and_counts_three_times(count):
    """Against a loop written out with plain gradient descent."""
    gamma, images = 5.0, 4 * count
    method = points(
        discriminator_steps=count,
        regularizer=GradientPenalty(r1=gamma, every=3),
        generator_optimizer=sgd(),
        discriminator_optimizer=sgd(),
    )
    state, step = begin(method, POINT, images), compiled(method.step)
    judge = functools.partial(method.discriminator.apply, train=True)
    generate = functools.partial(method.generator.apply, train=True)

    @compiled
    @functools.partial(jax.grad, has_aux=True)
    def judged(params, real, fake, times):
        slope = jax.vmap(jax.grad(lambda point: judge({"params": params}, point.reshape(1, 2)).sum()))(real)
        penalty = times * gamma / 2 * jnp.sum(slope**2, axis=1).mean()
        real, fake = (judge({"params": params}, each) for each in (real, fake))
        return jnp.mean(jnp.log1p(jnp.exp(-real)) + jnp.log1p(jnp.exp(fake))) + penalty, penalty

    @compiled
    @jax.grad
    def made(params, judging, latents):
        return jnp.mean(jnp.log1p(jnp.exp(-judge({"params": judging}, generate({"params": params}, latents)))))

    def descend(params, gradients):
        return jax.tree.map(lambda p, g: p - RATE * g, params, gradients)

    params = dict(state.params)
    for number in range(7):
        key, penalties = rng.stream(0, "method", number), []
        real = batch(POINT, number, images)["image"]
        for update in range(count):
            latents = method.draw(rng.child(rng.child(key, "discriminator", update), "latent"), 4)
            fake = generate({"params": params["generator"]}, latents)
            times = 3.0 * ((number * count + update) % 3 == 0)
            gradients, penalty = judged(params["discriminator"], real[update::count], fake, times)
            params["discriminator"] = descend(params["discriminator"], gradients)
            penalties.append(float(penalty))
        latents = method.draw(rng.child(rng.child(key, "generator"), "latent"), 4)
        params["generator"] = descend(params["generator"], made(params["generator"], params["discriminator"], latents))
        state, metrics = step(state, batch(POINT, number, images), key)
        assert (max(penalties) > 0.1) == any((number * count + update) % 3 == 0 for update in range(count))
        np.testing.assert_allclose(metrics["penalty"], np.mean(penalties), rtol=1e-4)
        assert_same(state.params, params, 1e-5)


@pytest.mark.parametrize("burn_in", [0, 30])
@pytest.mark.parametrize("ramp_up", [0.05, 1e9])
def test_the_averages_decay_in_closed_form(ramp_up, burn_in):
    average = MovingAverage(half_life=10, ramp_up=ramp_up, burn_in=burn_in)
    steps = np.arange(1, 400)
    half_lives = 10 * (1 - np.cos(np.pi * np.minimum(steps / burn_in, 1))) / 2 if burn_in else np.full(399, 10.0)
    found = np.asarray(compiled(jax.vmap(average.decay))(jnp.arange(400)))
    np.testing.assert_allclose(found[1:], 0.5 ** (1 / np.minimum(half_lives, ramp_up * steps)), rtol=1e-5, atol=1e-7)
    assert found[0] == 0.0 and found.dtype == np.float32
    np.testing.assert_allclose(found[300:310].prod(), 0.5, rtol=1e-5)  # what ten steps leave of the past


def weighted(weights, *leaves):
    return sum(weight * leaf for weight, leaf in zip(weights, leaves, strict=True))


def moved_apart(state):
    """Whether average and generator differ by more than what is compared, in parameters and in statistics."""
    return all(
        max(
            jax.tree.leaves(
                jax.tree.map(lambda a, b: np.abs(a - b).max(), tree["generator_average"], tree["generator"])
            )
        )
        > 1e-3
        for tree in (state.params, state.stats)
    )


def test_the_moving_average_is_the_weighted_sum_of_all_generators(history):
    method, states, _ = history
    for count in (1, 4, 12):
        decays = [float(method.average.decay(step)) for step in range(count)]
        weights = [(1 - decays[step]) * np.prod(decays[step + 1 :]) for step in range(count)]
        np.testing.assert_allclose(sum(weights), 1.0, rtol=1e-6)  # nothing is left of the random start
        for kind in ("params", "stats"):
            trees = [getattr(state, kind)["generator"] for state in states[1 : count + 1]]
            wanted = jax.tree.map(functools.partial(weighted, weights), *trees)
            assert_same(getattr(states[count], kind)["generator_average"], wanted, 1e-5)
        assert count == 1 or moved_apart(states[count])


def test_labels_follow_their_images():
    method = linear(
        generator=Named(), discriminator=Mismatch(), latent=4, classes=3, discriminator_steps=2, loss="least_squares"
    )
    state = begin(method, POINT, images=8)
    labels = jnp.array([0, 2, 1, 1, 2, 0, 0, 1])
    given = {"image": jnp.tile(labels.reshape(-1, 1), (1, 2)).astype(jnp.float32), "label": labels}
    # Logits are distances here, so that a mean of zero leaves no mismatch.
    metrics = method.step(state, given, KEY)[1]
    assert (metrics["real_logit"], metrics["fake_logit"]) == (0.0, 0.0)
    assert metrics["generator_loss"] == 0.5, "half of (0 - 1)^2"
    swapped = {**given, "label": jnp.roll(labels, 1)}
    assert method.step(state, swapped, KEY)[1]["real_logit"] > 0.5
    tickets = jnp.array([[7, 0], [7, 1], [7, 2], [7, 3], [8, 5]], jnp.int32)
    shown = method.exports["sample"](state, tickets)
    np.testing.assert_array_equal(shown[:, 0], [0, 1, 2, 0, 2])
    np.testing.assert_array_equal(method.exports["discriminate"](state, given), np.zeros(8))


def test_a_seed_and_a_number_make_one_image_whatever_else_is_asked(history):
    method, states, _ = history
    sample = compiled(method.exports["sample"])
    tickets = np.array([[3, 0], [3, 1], [3, 2], [4, 0], [3, 70_000], [2**31 - 1, 4]], np.int32)
    together = np.asarray(sample(states[-1], tickets))
    assert together.shape == (6, *PICTURE) and together.dtype == np.float32
    order = [4, 2, 2, 5, 0, 3, 1]
    np.testing.assert_allclose(sample(states[-1], tickets[order]), together[order], atol=1e-6)
    np.testing.assert_allclose(sample(states[-1], tickets[1:2]), together[1:2], atol=1e-6)
    for first, second in itertools.combinations(together, 2):
        assert np.abs(first - second).max() > 1e-3
    generated = method.exports["generate"](states[-1], method.latents_of(jnp.asarray(tickets)))
    np.testing.assert_allclose(generated, together, atol=1e-6)


def test_samples_come_from_the_average_where_there_is_one(history):
    method, states, _ = history
    tickets = jnp.array([[0, 0], [0, 1]], jnp.int32)
    state, sample = states[-1], compiled(method.exports["sample"])
    swapped = state.replace(
        params={**state.params, "generator": state.params["generator_average"]},
        stats={**state.stats, "generator": state.stats["generator_average"]},
    )
    plain = compiled(everything(average=None).exports["sample"])
    np.testing.assert_allclose(sample(state, tickets), plain(swapped, tickets), atol=1e-6)
    assert np.abs(sample(state, tickets) - plain(state, tickets)).max() > 1e-3


def test_the_penalty_of_a_bfloat16_discriminator_is_taken_in_float32():
    told = {}
    for dtype in ("float32", "bfloat16"):
        discriminator = mlp.Discriminator(hidden=(8, 8), dtype=dtype)
        method = points(discriminator=discriminator, regularizer=GradientPenalty(r1=3.0))
        told[dtype] = compiled(method.discriminator_step)(begin(method, POINT), batch(POINT), KEY)[1]
    np.testing.assert_allclose(told["bfloat16"]["penalty"], told["float32"]["penalty"], rtol=1e-5)
    assert abs(told["bfloat16"]["fake_logit"] - told["float32"]["fake_logit"]) > 1e-5, "the loss is in bfloat16"


def test_augmentation_lies_between_the_images_and_the_discriminator():
    """Cut squares out of what a linear discriminator sees: both gradients and the penalty in closed form."""
    augment, gamma = DiffAugment(("cutout",)), 0.5
    method = linear(shape=PICTURE, augment=augment, regularizer=GradientPenalty(r1=gamma))
    state, key, real = begin(method, PICTURE), jax.random.key(9), batch(PICTURE)["image"]
    weight, latents = state.params["discriminator"]["weight"], method.draw(rng.child(key, "latent"), 6)
    fake = latents.reshape(real.shape)
    # What a square of ones lets through; the groups are the real images and the generated ones.
    masks = [augment(jnp.ones_like(real), rng.child(rng.child(key, "augment"), "group", i), 0) for i in range(2)]
    assert all(0.1 < float(mask.mean()) < 0.9 for mask in masks) and (masks[0] != masks[1]).any()

    judged, metrics = compiled(method.discriminator_step)(state, {"image": real}, key)
    slopes = jnp.sum((masks[0] * weight) ** 2, axis=(1, 2, 3))
    np.testing.assert_allclose(metrics["penalty"], gamma / 2 * slopes.mean(), rtol=1e-5)
    gradient = (masks[1] * fake - masks[0] * real + gamma * masks[0] * weight).mean(axis=0, keepdims=True)
    np.testing.assert_allclose(judged.params["discriminator"]["weight"], weight - RATE * gradient, rtol=1e-4, atol=1e-6)

    made = compiled(method.generator_step)(state, {"image": real}, key)[0]
    gradient = -(masks[0] * weight * fake).mean(axis=0, keepdims=True)
    np.testing.assert_allclose(made.params["generator"]["gain"], 1 - RATE * gradient, rtol=1e-4, atol=1e-6)


def test_scheduled_augmentation_goes_by_the_step():
    method = linear(shape=PICTURE, augment=DiffAugment(("cutout",), schedules.Linear(0.0, 1.0, 10)))
    without, state = linear(shape=PICTURE), begin(linear(shape=PICTURE), PICTURE)
    late = state.replace(step=jnp.int32(10))
    cut, whole = (
        [each.discriminator_step(at, batch(PICTURE), KEY)[1]["real_logit"] for at in (state, late)]
        for each in (method, without)
    )
    assert cut[0] == whole[0] == whole[1] != cut[1]


@pytest.mark.parametrize(
    "make",
    [
        lambda: (everything(), PICTURE),
        lambda: (everything(regularizer=GradientPenalty(r1=1.0), average=None), PICTURE),
        lambda: (pictures(dtype="bfloat16", regularizer=GradientPenalty(interpolated=1.0, every=2)), PICTURE),
        lambda: (pictures("spectral", loss="hinge", discriminator_steps=3), PICTURE),
        lambda: (points(loss="least_squares", latent_law="uniform", classes=2), POINT),
    ],
    ids=["everything", "always", "bfloat16", "spectral", "points"],
)
def test_what_a_step_returns_is_what_the_next_one_takes(make):
    method, shape = make()
    given = jax.eval_shape(functools.partial(batch, shape))
    state = jax.eval_shape(functools.partial(begin.__wrapped__, method, shape))
    after, metrics = jax.eval_shape(method.step, state, given, KEY)
    described = [jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree) for tree in (state, after)]
    assert described[0] == described[1]
    assert {(value.shape, value.dtype) for value in metrics.values()} == {((), jnp.dtype("float32"))}
    always = {
        "discriminator_loss",
        "generator_loss",
        "real_logit",
        "fake_logit",
        "generator_rate",
        "discriminator_rate",
    }
    assert set(metrics) == always | ({"penalty"} if method.regularizer else set())


def test_metrics_and_states_are_finite_and_the_rates_those_of_the_step(history):
    _, states, metrics = history
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((states, metrics)))
    method = points(generator_optimizer=adam(learning_rate=schedules.Linear(1.0, 0.0, 10)))
    state = begin(method, POINT).replace(step=jnp.int32(4))
    told = compiled(method.step)(state, batch(POINT), KEY)[1]
    np.testing.assert_allclose([told["generator_rate"], told["discriminator_rate"]], [0.6, 0.01], rtol=1e-6)


def test_no_two_arrays_of_a_first_state_share_memory():
    changes = {"average": MovingAverage(4), "discriminator_optimizer": adam(b2=schedules.Cosine(0.9, 0.99, 6))}
    for state in (begin(everything(), PICTURE), begin.__wrapped__(points(**changes), POINT)):
        places = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(state)]
        assert len(set(places)) == len(places)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: points(latent=0), "latent=0: it must be at least 1"),
        (lambda: points(discriminator_steps=0), "discriminator_steps=0: it must be at least 1"),
        (lambda: points(generator=mlp.Generator(classes=3)), r"classes=None, but generator.classes=3: set both alike"),
        (
            lambda: points(classes=3, discriminator=mlp.Discriminator()),
            "classes=3, but discriminator.classes=None: set both alike",
        ),
        (
            lambda: points(classes=3).init(KEY, {"image": jax.ShapeDtypeStruct((6, 2), jnp.float32)}),
            "classes=3, but the batches hold no label: image",
        ),
        (
            lambda: points(discriminator_steps=2, discriminator_optimizer=adam(b2=schedules.Cosine(0.9, 0.99, 6))),
            "discriminator_optimizer.updates_per_step=1, but a step updates the discriminator 2 times: set it to 2",
        ),
        (
            lambda: points(classes=3).exports["discriminate"](
                begin(points(classes=3), POINT), {"image": jnp.zeros((1, 2))}
            ),
            "classes=3: give a label with every image",
        ),
        (lambda: points(loss="plain"), "loss='plain' is none of non_saturating, least_squares"),
        (lambda: MovingAverage(half_life=0), "half_life=0 steps and ramp_up=0.05: the first must be at least 1"),
        (lambda: MovingAverage(half_life=5, ramp_up=0.0), "ramp_up=0.0: .* the second above 0"),
        (lambda: begin(points(), (3,)), "the generator makes images of 2 and the data are 3"),
        (
            lambda: begin(pictures(), (16, 16, 1)),
            "makes images of 8x8x1 and the data are 16x16x1: set generator.size_px",
        ),
        (lambda: begin(pictures(), (8, 8, 3)), "makes images of 8x8x1 and the data are 8x8x3"),
        (lambda: begin(points(discriminator_steps=4), POINT, images=6), "6 images .* discriminator_steps=4: take 4"),
        (lambda: begin(points(discriminator_steps=8), POINT, images=6), "discriminator_steps=8: take 8"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(UsageError, match=message):
        make()
