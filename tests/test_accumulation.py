"""Several training steps for one update: exact means, schedules by training steps, and states that can be resumed."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssl_jax import accumulation, optim
from ssl_jax.methods.simsiam import SimSiam
from ssl_jax.models.convnet import ConvNet
from ssl_jax.models.heads import Predictor, Projector
from ssl_jax.types import UsageError

STEPS = 12
EVERY = 3


def tree(seed):
    draw = np.random.default_rng(seed)
    return {
        "encoder": {"kernel": draw.normal(size=(3, 4)).astype(np.float32), "bias": np.float32(draw.normal(size=4))},
        "predictor": {"kernel": (5 * draw.normal(size=(4, 2))).astype(np.float32)},
    }


def follow(optimizer, gradients):
    """The parameters before and after each update, its updates and the state that it leaves."""

    @jax.jit
    def step(params, state, gradient):
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), updates, state

    params = jax.tree.map(jnp.asarray, tree(0))
    state, seen = optimizer.init(params), []
    for gradient in gradients:
        params, updates, state = step(params, state, gradient)
        seen.append((params, updates, state))
    return seen


def equal(one, other):
    return jax.tree.all(jax.tree.map(lambda a, b: a.dtype == b.dtype and np.array_equal(a, b), one, other))


def close(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def means(gradients):
    groups = [gradients[first : first + EVERY] for first in range(0, len(gradients), EVERY)]
    return [jax.tree.map(lambda *leaves: np.mean(np.float64(leaves), 0).astype(np.float32), *group) for group in groups]


FORMS = {
    "sgd": (optim.sgd, {"weight_decay": 0.1, "no_decay": ("encoder/bias",), "constant_rate": ("predictor",)}),
    "sgd_warm": (optim.sgd, {"warmup_steps": 6, "weight_decay": 0.1}),
    "sgd_held": (optim.sgd, {"hold_steps": 6}),
    "lars": (optim.lars, {"weight_decay": 0.1, "trust_coefficient": 0.02}),
    "adam": (optim.adam, {"weight_decay": 0.1, "constant_rate": ("encoder/bias",)}),
}


def both(form):
    """An optimiser of three steps an update, and one of a step that sees three times the images."""
    make, arguments = FORMS[form]
    scaled = {name: value // EVERY if name.endswith("_steps") else value for name, value in arguments.items()}
    accumulated = make(0.1, 128, decay_steps=STEPS, accumulate_steps=EVERY, **arguments)
    return accumulated, make(0.1, EVERY * 128, decay_steps=STEPS // EVERY, **scaled)


@pytest.mark.parametrize("form", FORMS)
def test_three_steps_are_one_step_of_three_times_the_images(form):
    gradients = [tree(100 + step) for step in range(STEPS)]
    accumulated, large = both(form)
    seen, expected = follow(accumulated, gradients), follow(large, means(gradients))
    before = jax.tree.map(jnp.asarray, tree(0))
    for step, (params, updates, _) in enumerate(seen):
        if step % EVERY < EVERY - 1:
            assert equal(params, before) and not any(np.any(leaf) for leaf in jax.tree.leaves(updates))
        else:
            close(params, expected[step // EVERY][0])
        rate, large_rate = accumulated.learning_rate(jnp.int32(step)), large.learning_rate(jnp.int32(step // EVERY))
        assert float(rate) == pytest.approx(float(large_rate), rel=1e-6)
        before = params


@pytest.mark.parametrize("hold_steps", [1, 5])
def test_the_reported_rate_is_the_applied_one(hold_steps):
    one = {"w": jnp.ones(1)}
    optimizer = optim.sgd(
        0.03, 512, decay_steps=12, warmup_steps=4, hold_steps=hold_steps, momentum=0.0, accumulate_steps=2
    )
    plain = optim.warmup_cosine(0.12, decay_steps=12, warmup_steps=4, hold_steps=max(hold_steps, 2))
    state = optimizer.init(one)
    for step in range(12):
        updates, state = optimizer.update(one, state, one)
        rate = float(optimizer.learning_rate(jnp.int32(step)))
        assert rate == pytest.approx(float(plain(step // 2 * 2)), rel=1e-6)
        assert -float(updates["w"][0]) == pytest.approx(rate if step % 2 else 0.0, rel=1e-6)


def by_parameter(optimizer, start):
    return optim.by_parameter(
        optimizer,
        scale_of=lambda path: 0.5 if path[0].key == "encoder" else 1.0,
        start_of=lambda path: start if path[0].key == "encoder" else 0,
    )


@pytest.mark.parametrize("start", [3, 4, 6])
@pytest.mark.parametrize("form", ["sgd", "adam"])
def test_starts_go_by_training_steps_and_a_late_part_waits_for_a_whole_update(form, start):
    gradients = [tree(100 + step) for step in range(STEPS)]
    accumulated, large = both(form)
    first = -(-start // EVERY)
    seen = follow(by_parameter(accumulated, start), gradients)
    expected = follow(by_parameter(large, first), means(gradients))
    for update in range(STEPS // EVERY):
        close(seen[EVERY * update + EVERY - 1][0], expected[update][0])
    moved = [np.any(updates["encoder"]["kernel"]) for _, updates, _ in seen]
    assert moved.index(True) == EVERY * first + EVERY - 1


@pytest.mark.parametrize("form", FORMS)
def test_one_step_an_update_leaves_states_and_programs_as_they_were(form):
    make, arguments = FORMS[form]
    plain, one = make(0.1, 128, STEPS, **arguments), make(0.1, 128, STEPS, accumulate_steps=1, **arguments)
    params = tree(0)
    state = plain.init(params)
    assert equal(state, one.init(params))
    assert jax.tree.structure(state) == jax.tree.structure(optax.chain(plain.direction, plain.rate).init(params))
    assert accumulation.every(1, plain).update is plain.update


def test_the_sum_is_wide_where_gradients_are_narrow():
    # 256 + 1 + 1 + 1 is 256 in bfloat16, added one by one.
    params = {"w": jnp.zeros(1, jnp.bfloat16)}
    mean = accumulation.every(4, optax.identity())
    state = mean.init(params)
    for value in (256.0, 1.0, 1.0, 1.0):
        updates, state = mean.update({"w": jnp.full(1, value, jnp.bfloat16)}, state, params)
    assert updates["w"].dtype == jnp.bfloat16 and float(updates["w"][0]) == jnp.bfloat16(259 / 4)
    assert float(updates["w"][0]) != 64.0 and state.total["w"].dtype == jnp.float32


@pytest.mark.parametrize("form", ["sgd", "adam"])
def test_the_state_keeps_its_form_and_holds_one_more_copy(form):
    accumulated, large = both(form)
    params = jax.tree.map(jnp.asarray, tree(0))
    before = jax.eval_shape(accumulated.init, params)
    after = jax.eval_shape(lambda p, s: accumulated.update(p, s, p)[1], params, before)
    described = [[(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(state)] for state in (before, after)]
    assert described[0] == described[1] and jax.tree.structure(before) == jax.tree.structure(after)
    sizes = [sum(leaf.size for leaf in jax.tree.leaves(state)) for state in (before, large.init(params), params)]
    assert sizes[0] == sizes[1] + sizes[2] + 1


@pytest.mark.parametrize("make", [optim.sgd, optim.lars, optim.adam])
def test_less_than_one_step_is_refused(make):
    with pytest.raises(UsageError, match="accumulate_steps=0: an update takes the gradients of at least 1 step"):
        make(0.1, 256, decay_steps=10, accumulate_steps=0)
    with pytest.raises(UsageError, match="hold_steps"):
        optim.sgd(0.1, 256, decay_steps=10, hold_steps=0, accumulate_steps=2)


def simsiam(*, groups=1, **optimizer):
    encoder = ConvNet(channels=(3, 4), strides=(1, 2), dtype="float64", norm_groups=groups)
    projector = Projector(6, 6, layers=2, dtype="float64", norm_groups=groups)
    predictor = Predictor(4, 6, dtype="float64", norm_groups=groups)
    return SimSiam(encoder, projector, predictor, optim.sgd(2.0, weight_decay=0.1, **optimizer))


def views(seed, count):
    draw = np.random.default_rng(seed)
    return {name: draw.normal(size=(count, 6, 6, 1)) for name in ("view_1", "view_2")}


def quarters(batch):
    return [{name: view[16 * k : 16 * k + 16] for name, view in batch.items()} for k in range(4)]


def first_state(method, batch):
    state = jax.jit(method.init)(jax.random.key(0), batch)
    return jax.tree.map(lambda x: x.astype(np.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x, state)


@pytest.fixture
def accumulating():
    """SimSiam at batch 16 and four steps an update in float64, its compiled step, and two batches of 64."""
    with jax.enable_x64(True):
        method = simsiam(batch_size=16, decay_steps=12, accumulate_steps=4)
        batches = [views(seed, 64) for seed in (1, 2)]
        yield jax.jit(method.step), first_state(method, quarters(batches[0])[0]), batches


def test_four_quarters_of_a_batch_are_the_batch_normalised_by_quarters(accumulating):
    step, state, batches = accumulating
    large = simsiam(groups=4, batch_size=64, decay_steps=3)
    whole_step, whole = jax.jit(large.step), first_state(large, batches[0])
    started = whole.params
    for batch in batches:
        losses = []
        for quarter in quarters(batch):
            state, metrics = step(state, quarter, jax.random.key(0))
            losses.append(float(metrics["loss"]))
        whole, metrics = whole_step(whole, batch, jax.random.key(0))
        for one, other in zip(jax.tree.leaves(state.params), jax.tree.leaves(whole.params), strict=True):
            assert one.dtype == np.float64
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-10)
        assert np.mean(losses) == pytest.approx(float(metrics["loss"]), abs=1e-12)
    assert max(np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (started, whole.params)), strict=True)) > 0.1


def test_a_run_goes_on_in_the_middle_of_an_update_bit_for_bit(accumulating, tmp_path):
    step, state, batches = accumulating
    steps = [quarter for batch in batches for quarter in quarters(batch)]
    whole = state
    for place, batch in enumerate(steps):
        if place == 6:  # two of four gradients are in
            leaves, form = jax.tree.flatten(whole)
            np.savez(tmp_path / "state.npz", *leaves)
        whole, _ = step(whole, batch, jax.random.key(0))
    with np.load(tmp_path / "state.npz") as file:
        resumed = jax.tree.unflatten(form, [jnp.asarray(file[name]) for name in file.files])
    for batch in steps[6:]:
        resumed, _ = step(resumed, batch, jax.random.key(0))
    assert equal(resumed, whole)
