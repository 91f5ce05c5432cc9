"""CycleGAN's update: against PyTorch where that is installed, and by what it must and must not move."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import optim, rng, schedules
from ssl_jax.diff_augment import DiffAugment
from ssl_jax.image_pool import ImagePool
from ssl_jax.methods.cyclegan import CycleGAN
from ssl_jax.models import cyclegan, cyclegan_weights
from ssl_jax.moving_average import MovingAverage
from ssl_jax.regularizers import GradientPenalty
from ssl_jax.types import UsageError
from tests.models import cyclegan_reference

RATE, STEPS, BATCH, SIZE_PX = 2e-3, 4, 2, 16
WIDTH, JUDGE_WIDTH = 4, 6


def method(dtype="float32", channels_a=3, channels_b=3, **changes):
    adam = optim.scheduled_adam(changes.pop("rate", RATE), 0.5, 0.999)
    made = CycleGAN(
        cyclegan.ResNetGenerator(width=WIDTH, blocks=1, deviation=0.2, dtype=dtype),
        cyclegan.PatchGAN(width=JUDGE_WIDTH, strides=1, deviation=0.2, dtype=dtype),
        adam,
        adam,
        pool=ImagePool(3),
    )
    return dataclasses.replace(made, channels_a=channels_a, channels_b=channels_b, **changes)


def spec(channels=(3, 3), dtype=np.float32, batch=BATCH):
    shapes = zip("ab", channels, strict=True)
    return {f"image_{domain}": jax.ShapeDtypeStruct((batch, SIZE_PX, SIZE_PX, c), dtype) for domain, c in shapes}


def batches(count, channels=(3, 3), dtype=np.float32, batch=BATCH):
    draw = np.random.default_rng(0)
    return [
        {name: draw.uniform(-1, 1, each.shape).astype(dtype) for name, each in spec(channels, dtype, batch).items()}
        for _ in range(count)
    ]


def started(method, **kind):
    return jax.jit(lambda key: method.init(key, spec(**kind)))(jax.random.key(0))


def compiled(function):
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="needs the parity extra: make test PARITY=1")


# The update as the reference implementation writes it.


def train_torch(torch, networks, recipe, examples, choices):
    """cycle_gan_model.py's optimize_parameters over some batches; the losses of each.

    `choices` gives each step the pools' draws by domain.
    """
    loss, identity, size = recipe
    functional = torch.nn.functional
    g_a, g_b, d_a, d_b = networks  # G_A makes B, D_A judges B
    adams = [
        torch.optim.Adam(itertools.chain(*[network.parameters() for network in pair]), RATE, (0.5, 0.999))
        for pair in ((g_a, g_b), (d_a, d_b))
    ]
    pools, told = {domain: ([], size) for domain in "ab"}, []

    def gan(prediction, real):
        target = torch.full_like(prediction, 1.0 if real else 0.0)
        form = functional.mse_loss if loss == "least_squares" else functional.binary_cross_entropy_with_logits
        return form(prediction, target)

    def query(domain, images, swaps, places):
        kept, size = pools[domain]
        out = []
        for image, swap, place in zip(images, swaps, places, strict=True):
            if size == 0:
                out.append(image)
            elif len(kept) < size:
                kept.append(image.clone())
                out.append(image)
            elif swap:
                out.append(kept[place].clone())
                kept[place] = image.clone()
            else:
                out.append(image)
        return torch.stack(out)

    def judges_learn(on):
        for parameter in itertools.chain(d_a.parameters(), d_b.parameters()):
            parameter.requires_grad_(on)

    for batch, drawn in zip(examples, choices, strict=True):
        real_a, real_b = (torch.tensor(batch[f"image_{d}"].transpose(0, 3, 1, 2).copy()) for d in "ab")
        fake_b, fake_a = g_a(real_a), g_b(real_b)
        rec_a, rec_b = g_b(fake_b), g_a(fake_a)
        judges_learn(False)
        adams[0].zero_grad()
        lambda_a, lambda_b = 10.0, 8.0
        values = {"generator_loss_ab": gan(d_a(fake_b), True), "generator_loss_ba": gan(d_b(fake_a), True)}
        values["cycle_a"], values["cycle_b"] = functional.l1_loss(rec_a, real_a), functional.l1_loss(rec_b, real_b)
        total = values["generator_loss_ab"] + values["generator_loss_ba"]
        total = total + lambda_a * values["cycle_a"] + lambda_b * values["cycle_b"]
        if identity:
            values["identity_b"] = functional.l1_loss(g_a(real_b), real_b)
            values["identity_a"] = functional.l1_loss(g_b(real_a), real_a)
            total = total + lambda_b * identity * values["identity_b"] + lambda_a * identity * values["identity_a"]
        total.backward()
        adams[0].step()
        judges_learn(True)
        adams[1].zero_grad()
        for domain, judge, real, fake in (("b", d_a, real_b, fake_b), ("a", d_b, real_a, fake_a)):
            seen = query(domain, fake.detach(), *drawn[domain])
            values[f"discriminator_loss_{domain}"] = (gan(judge(real), True) + gan(judge(seen), False)) * 0.5
            values[f"discriminator_loss_{domain}"].backward()
        adams[1].step()
        told.append({name: value.item() for name, value in values.items()})
    return told


RECIPES = {
    "published": ("least_squares", 0.5, 3),
    "no_identity": ("least_squares", 0.0, 3),
    "cross_entropy": ("non_saturating", 0.5, 3),
    "no_pool": ("least_squares", 0.5, 0),
}
OURS = ("generator_ab", "generator_ba", "discriminator_b", "discriminator_a")


@pytest.mark.parametrize("recipe", RECIPES)
def test_steps_equal_the_references(torch, recipe):
    loss, identity, size = RECIPES[recipe]
    torch.manual_seed(0)
    networks = [cyclegan_reference.generator(torch, width=WIDTH, blocks=1).double() for _ in range(2)]
    networks += [cyclegan_reference.discriminator(torch, width=JUDGE_WIDTH, strides=1).double() for _ in range(2)]
    for parameter in itertools.chain(*[network.parameters() for network in networks]):
        # In float32 first, as which `weights` reads them.
        parameter.data = (0.2 * torch.randn(parameter.shape)).double()

    def weights():
        trees = {}
        for name, network in zip(OURS, networks, strict=True):
            state = {key: value.numpy().copy() for key, value in network.state_dict().items()}
            if name.startswith("generator"):
                trees[name] = cyclegan_weights.from_reference(state, where=name)[1]
            else:
                trees[name] = cyclegan_weights.discriminator_from_reference(state, where=name)[1]
        return trees

    examples, choices = batches(STEPS, dtype=np.float64), []
    with jax.enable_x64(True):
        ours = method("float64", loss=loss, identity=identity, cycle_b=8.0, pool=ImagePool(size))
        before = weights()
        state = ours.init(jax.random.key(0), spec(dtype=np.float64))
        state = state.replace(params=jax.tree.map(lambda each: jnp.asarray(each, jnp.float64), before))
        step, metrics = compiled(ours.step), []
        for number, batch in enumerate(examples):
            key = rng.stream(0, "method", number)
            state, found = step(state, batch, key)
            metrics.append({name: float(value) for name, value in found.items()})
            draws = {domain: ours.pool.draws(rng.child(key, f"pool_{domain}"), BATCH) for domain in "ab"}
            choices.append({domain: [np.asarray(each) for each in drawn] for domain, drawn in draws.items()})
    assert size == 0 or any(np.asarray(drawn[domain][0]).any() for drawn in choices[2:] for domain in "ab")
    told = train_torch(torch, networks, RECIPES[recipe], examples, choices)
    for number, (found, expected) in enumerate(zip(metrics, told, strict=True)):
        assert expected.keys() <= found.keys()
        for name, value in expected.items():
            # Metrics are float32; so are Adam's rate and decays, which shows from the second step on.
            assert found[name] == pytest.approx(value, rel=1e-5 if number else 1e-6, abs=1e-6), name
    assert ("identity_a" in metrics[0]) == bool(identity)
    for name, tree in weights().items():
        moved = jax.tree.map(lambda new, old: np.abs(new - old).max(), tree, before[name])
        assert min(value for path, value in jax.tree.leaves_with_path(moved) if path[-1].key == "kernel") > RATE

        def assert_close(path, ours, theirs, name=name):
            # The gradient of a bias before instance norm is zero but for rounding, whose sign Adam makes a step of.
            if path[-1].key == "kernel" or path[0].key in ("head", "conv1", "conv3"):
                np.testing.assert_allclose(ours, theirs, atol=1e-6, err_msg=f"{name} {path}")

        jax.tree_util.tree_map_with_path(assert_close, state.params[name], tree)


def test_every_forward_pass_is_made_once():
    """Four passes of a generator end in tanh: two of an image and its identity, two ways back; nothing is repeated."""
    ours = method()
    state = jax.eval_shape(lambda: ours.init(jax.random.key(0), spec()))
    text = str(jax.make_jaxpr(ours.step)(state, spec(), jax.random.key(0)))
    assert text.count(" tanh ") == 4
    convolutions = text.count("= conv_general_dilated[") + text.count("custom_vjp_call")
    assert convolutions


def test_metrics_and_rates():
    rate = schedules.Linear(1e-3, 0.0, 10, 2)
    ours = method(rate=rate)
    state, metrics = compiled(ours.step)(started(ours), batches(1)[0], jax.random.key(1))
    names = {"generator_rate", "discriminator_rate"}
    for domain, way in (("a", "ba"), ("b", "ab")):
        names |= {
            f"{name}_{domain}" for name in ("cycle", "identity", "discriminator_loss", "real_logit", "fake_logit")
        }
        names.add(f"generator_loss_{way}")
    assert set(metrics) == names
    assert all(value.dtype == jnp.float32 and value.shape == () for value in metrics.values())
    assert int(state.step) == 1 and metrics["generator_rate"] == pytest.approx(1e-3)


def test_the_identity_loss_shows_each_generator_images_of_its_target():
    ours = method()
    state, first, second = started(ours), *batches(2)
    step = compiled(ours.step)
    metrics = [step(state, batch, jax.random.key(0))[1] for batch in (first, {**first, "image_b": second["image_b"]})]
    assert metrics[0]["identity_a"] == metrics[1]["identity_a"] and metrics[0]["identity_b"] != metrics[1]["identity_b"]


def test_the_average_follows_the_generators_and_translates():
    ours = method(average=MovingAverage(half_life=2, ramp_up=100.0))
    state = started(ours)
    for name in ("generator_ab", "generator_ba"):
        jax.tree.map(np.testing.assert_array_equal, state.params[f"{name}_average"], state.params[name])
    step = compiled(ours.step)
    expected = None
    for number, batch in enumerate(batches(3)):
        before = state.params["generator_ab_average"]
        decay = ours.average.decay(state.step)
        state, _ = step(state, batch, jax.random.key(number))
        expected = jax.tree.map(lambda a, b, d=decay: d * a + (1 - d) * b, before, state.params["generator_ab"])
    found = state.params["generator_ab_average"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, expected)
    images = batches(1)[0]["image_a"]
    made = ours.exports["translate_ab"](state, images)
    np.testing.assert_array_equal(made, ours.network("ab").apply({"params": found}, images))
    newest = ours.network("ab").apply({"params": state.params["generator_ab"]}, images)
    assert np.abs(made - newest).max() > 1e-3


def test_exports():
    ours = method()
    state = started(ours)
    batch = batches(1)[0]
    asked = ours.exports
    assert set(asked) == {
        *("translate_ab", "translate_ba", "reconstruct_a", "reconstruct_b", "discriminate_a", "discriminate_b")
    }

    def through(name, images):
        return ours.generator.apply({"params": state.params[name]}, images)

    made = through("generator_ab", batch["image_a"])
    np.testing.assert_allclose(asked["translate_ab"](state, batch["image_a"]), made, atol=1e-6)
    back = through("generator_ba", made)
    np.testing.assert_allclose(asked["reconstruct_a"](state, batch["image_a"]), back, atol=1e-6)
    back = through("generator_ab", through("generator_ba", batch["image_b"]))
    np.testing.assert_allclose(asked["reconstruct_b"](state, batch["image_b"]), back, atol=1e-6)
    logits = ours.discriminator.apply({"params": state.params["discriminator_b"]}, batch["image_b"])
    np.testing.assert_allclose(
        asked["discriminate_b"](state, batch["image_b"]), np.asarray(logits).mean(axis=(1, 2)), atol=1e-6
    )


def test_domains_of_different_channels():
    channels = (1, 3)
    ours = method(channels_a=1, identity=0.0)
    state = started(ours, channels=channels)
    state, _ = compiled(ours.step)(state, batches(1, channels)[0], jax.random.key(0))
    batch = batches(1, channels)[0]
    assert ours.exports["translate_ab"](state, batch["image_a"]).shape == (BATCH, SIZE_PX, SIZE_PX, 3)
    assert ours.exports["translate_ba"](state, batch["image_b"]).shape == (BATCH, SIZE_PX, SIZE_PX, 1)
    assert state.memory["pool_a"].images.shape == (1, 3, SIZE_PX, SIZE_PX, 1)
    assert state.memory["pool_b"].images.shape == (1, 3, SIZE_PX, SIZE_PX, 3)


def test_a_penalty_is_added_to_the_discriminators_gradient():
    batch, key = batches(1)[0], jax.random.key(0)
    plain, penalised = method(), method(regularizer=GradientPenalty(r1=4.0))
    state = started(plain)
    _, metrics = compiled(penalised.step)(state, batch, key)
    expected = 0.0
    for domain in "ab":

        def opinion(images, own=state.params[f"discriminator_{domain}"]):
            return plain.discriminator.apply({"params": own}, images).mean(axis=(1, 2)).sum()

        slopes = jax.grad(opinion)(jnp.asarray(batch[f"image_{domain}"]))
        expected += 4.0 / 2 * np.mean(np.sum(np.square(slopes), axis=(1, 2, 3)))
    assert metrics["penalty"] == pytest.approx(expected, rel=1e-4) and expected > 1e-4
    seen = method(regularizer=GradientPenalty(r1=4.0, every=2))
    told = [compiled(seen.step)(state.replace(step=jnp.int32(n)), batch, key)[1]["penalty"] for n in (0, 1)]
    assert told[0] == pytest.approx(2 * expected, rel=1e-4) and told[1] == 0.0


def test_augmented_images_reach_the_discriminators_alone():
    batch, key = batches(1)[0], jax.random.key(0)
    plain, changed = method(), method(augment=DiffAugment())
    state = started(plain)
    ours, theirs = (compiled(each.step)(state, batch, key)[1] for each in (plain, changed))
    for name in ("cycle_a", "cycle_b", "identity_a", "identity_b"):
        assert ours[name] == theirs[name]
    for name in ("generator_loss_ab", "real_logit_a", "fake_logit_b"):
        assert ours[name] != theirs[name]


@pytest.mark.parametrize("loss", ["hinge", "relativistic", "wasserstein"])
def test_other_losses_and_bfloat16_train(loss):
    ours = method("bfloat16", loss=loss, regularizer=GradientPenalty(r1=1.0, r2=1.0))
    state, step = started(ours), compiled(ours.step)
    for number, batch in enumerate(batches(2)):
        state, metrics = step(state, batch, jax.random.key(number))
    assert all(np.isfinite(value) for value in metrics.values())
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}


def test_unet_translates_too():
    ours = method(generator=cyclegan.UNetGenerator(width=4, halvings=3))
    state, _ = compiled(ours.step)(started(ours), batches(1)[0], jax.random.key(0))
    assert ours.exports["translate_ab"](state, batches(1)[0]["image_a"]).shape == (BATCH, SIZE_PX, SIZE_PX, 3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"loss": "l2"}, "loss='l2' is none of"),
        ({"cycle_a": -1.0}, "cycle_a=-1.0: a weight is at least 0"),
        ({"channels_b": 1}, r"identity=0.5, but A has 3 channel\(s\) and B 1: .* set identity to 0"),
        ({"generator_optimizer": optim.scheduled_adam(schedules.Linear(1e-3, 0.0, 10), updates_per_step=2)}, "to 1"),
    ],
)
def test_impossible_settings(changes, words):
    with pytest.raises(UsageError, match=words):
        method(**changes)


def test_batches_that_do_not_fit():
    key = jax.random.key(0)
    with pytest.raises(UsageError, match="CycleGAN takes image_a and image_b, and the batches hold image, label"):
        method().init(key, {"image": spec()["image_a"], "label": jax.ShapeDtypeStruct((2,), np.int32)})
    with pytest.raises(UsageError, match=r"the images of B have 1 channel\(s\) and channels_b=3"):
        method().init(key, spec((3, 1)))
    uneven = {**spec(), "image_b": jax.ShapeDtypeStruct((BATCH, 20, SIZE_PX, 3), np.float32)}
    with pytest.raises(UsageError, match=r"images of A are \(16, 16\) px \(h, w\) and of B \(20, 16\)"):
        method().init(key, uneven)
    odd = {name: jax.ShapeDtypeStruct((BATCH, 18, 18, 3), np.float32) for name in spec()}
    with pytest.raises(UsageError, match="multiples of 4 px, not 18x18"):
        method().init(key, odd)
    with pytest.raises(UsageError, match="a batch of 2 images is not divided by pools=4"):
        method(pool=ImagePool(3, 4)).init(key, spec())
