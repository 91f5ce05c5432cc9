import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssl_jax import optim, schedules
from ssl_jax.types import UsageError

STEPS = 20


def tree(seed):
    """Two networks whose parameters have different scales and shapes."""
    draw = np.random.default_rng(seed)
    return {
        "encoder": {
            "kernel": draw.normal(size=(3, 4)).astype(np.float32),
            "bias": draw.normal(size=4).astype(np.float32),
        },
        "predictor": {"kernel": (5 * draw.normal(size=(4, 2))).astype(np.float32)},
    }


def named(params):
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}


def gradients(step):
    return tree(100 + step)


def follow(optimizer, params, steps=STEPS):
    """The parameters, by path, after each of `steps` compiled updates with `gradients`."""

    @jax.jit
    def update(params, state, grads):
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params = jax.tree.map(jnp.asarray, params)
    state, seen = optimizer.init(params), []
    for step in range(steps):
        params, state = update(params, state, gradients(step))
        seen.append(named(params))
    return seen


def cosine(step, peak, decay_steps, warmup_steps=0):
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    return 0.5 * peak * (1 + math.cos(math.pi * min(1, (step - warmup_steps) / (decay_steps - warmup_steps))))


def numpy_sgd(params, peak, *, momentum, decay, constant=(), no_decay=(), warmup_steps=0):
    """PyTorch's update written out: decay into the gradient, momentum over it, the rate outside."""
    params, buffers, seen = named(params), {}, []
    for step in range(STEPS):
        for name, gradient in named(gradients(step)).items():
            gradient = gradient + (0 if name in no_decay else decay) * params[name]
            buffers[name] = momentum * buffers.get(name, 0) + gradient
            rate = peak if name in constant else cosine(step, peak, STEPS, warmup_steps)
            params[name] = params[name] - rate * buffers[name]
        seen.append(dict(params))
    return seen


def assert_same(ours, theirs, tolerance=2e-6):
    for step, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_allclose(a[name], b[name], rtol=1e-5, atol=tolerance, err_msg=f"{name} at step {step}")


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {"momentum": 0.9, "decay": 0.0}),
        ({"momentum": 0.5, "weight_decay": 0.1}, {"momentum": 0.5, "decay": 0.1}),
        ({"warmup_steps": 5, "weight_decay": 0.01}, {"momentum": 0.9, "decay": 0.01, "warmup_steps": 5}),
        (
            {"constant_rate": ("predictor",), "weight_decay": 0.1, "no_decay": ("encoder/bias",)},
            {"momentum": 0.9, "decay": 0.1, "constant": ("predictor/kernel",), "no_decay": ("encoder/bias",)},
        ),
    ],
)
def test_sgd_is_the_written_out_update(ours, theirs):
    optimizer = optim.sgd(0.05, batch_size=512, decay_steps=STEPS, **ours)
    assert_same(follow(optimizer, tree(0)), numpy_sgd(tree(0), 0.1, **theirs))


@pytest.mark.parametrize(("momentum", "decay"), [(0.9, 5e-4), (0.9, 0.1), (0.0, 0.1)])
def test_sgd_is_pytorchs(momentum, decay):
    torch = pytest.importorskip("torch", reason="needs the parity extra: make test PARITY=1")
    optimizer = optim.sgd(0.1, 256, decay_steps=STEPS, momentum=momentum, weight_decay=decay)
    theirs = {name: torch.tensor(value, requires_grad=True) for name, value in named(tree(0)).items()}
    peer = torch.optim.SGD(theirs.values(), lr=0.1, momentum=momentum, weight_decay=decay)
    seen = []
    for step in range(STEPS):
        peer.param_groups[0]["lr"] = cosine(step, 0.1, STEPS)
        for name, gradient in named(gradients(step)).items():
            theirs[name].grad = torch.tensor(gradient)
        peer.step()
        seen.append({name: value.detach().numpy().copy() for name, value in theirs.items()})
    assert_same(follow(optimizer, tree(0)), seen)


def test_cosine_at_its_landmarks():
    rate = optim.warmup_cosine(0.8, decay_steps=100)
    got = [float(rate(step)) for step in (0, 25, 50, 75, 100, 150)]
    quarter = 0.8 * (2 + math.sqrt(2)) / 4
    np.testing.assert_allclose(got, [0.8, quarter, 0.4, 0.8 - quarter, 0.0, 0.0], atol=1e-7)


def test_warmup_is_linear_and_the_cosine_begins_after_it():
    rate = optim.warmup_cosine(1.0, decay_steps=30, warmup_steps=10)
    got = [float(rate(step)) for step in range(31)]
    np.testing.assert_allclose(got[:10], np.arange(1, 11) / 10, rtol=1e-6)
    np.testing.assert_allclose([got[10], got[20], got[30]], [1.0, 0.5, 0.0], atol=1e-7)
    assert np.all(np.diff(got[10:]) < 0)


def test_a_held_rate_changes_only_at_whole_epochs():
    held = optim.warmup_cosine(1.0, decay_steps=40, hold_steps=10)
    free = optim.warmup_cosine(1.0, decay_steps=40)
    got = [float(held(step)) for step in range(40)]
    assert got == [float(free(step // 10 * 10)) for step in range(40)] and len(set(got)) == 4


def test_a_held_warmup_reaches_the_peak_in_equal_stairs():
    rate = optim.warmup_cosine(1.0, decay_steps=100, warmup_steps=40, hold_steps=10)
    got = [float(rate(step)) for step in range(50)]
    np.testing.assert_allclose(got, np.repeat([0.25, 0.5, 0.75, 1.0, 1.0], 10), rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"warmup_steps": 10}, "warmup_steps"),
        ({"warmup_steps": -1}, "warmup_steps"),
        ({"hold_steps": 0}, "hold_steps"),
    ],
)
def test_impossible_schedules_are_refused(arguments, words):
    with pytest.raises(UsageError, match=words):
        optim.warmup_cosine(1.0, decay_steps=10, **arguments)


def test_the_reported_rate_is_the_applied_one_scaled_by_the_batch():
    optimizer = optim.sgd(0.03, batch_size=512, decay_steps=10, warmup_steps=2, momentum=0.0)
    one = {"w": jnp.ones(1)}
    state = optimizer.init(one)
    for step in range(10):
        updates, state = optimizer.update(one, state, one)
        assert float(optimizer.learning_rate(jnp.int32(step))) == pytest.approx(-float(updates["w"][0]), rel=1e-6)
    assert float(optimizer.learning_rate(1)) == pytest.approx(0.06)


def test_a_path_names_whole_components():
    params = {"predictor": {"a": jnp.ones(2)}, "predictor_2": {"a": jnp.ones(2)}}
    optimizer = optim.sgd(1.0, 256, decay_steps=4, momentum=0.0, constant_rate=("predictor",))
    state = optimizer.init(params)
    for _ in range(3):
        updates, state = optimizer.update(params, state, params)
    assert float(updates["predictor"]["a"][0]) == -1.0
    assert float(updates["predictor_2"]["a"][0]) == pytest.approx(-0.5)


@pytest.mark.parametrize("make", [optim.sgd, optim.lars, optim.adam])
@pytest.mark.parametrize("argument", ["constant_rate", "no_decay"])
def test_a_path_without_parameters_is_refused(make, argument):
    optimizer = make(0.1, 256, decay_steps=10, **{argument: ("predictr",)})
    with pytest.raises(UsageError, match=r"'predictr'.*encoder, predictor"):
        optimizer.init(tree(0))


def test_bfloat16_parameters_stay_bfloat16():
    params = {"w": jnp.ones(3, jnp.bfloat16)}
    optimizer = optim.sgd(0.1, 256, decay_steps=10, weight_decay=0.1)
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    assert updates["w"].dtype == jnp.bfloat16


@pytest.mark.parametrize("decay", [0.0, 0.2])
def test_lars_is_the_written_out_update(decay):
    optimizer = optim.lars(
        0.5, 256, decay_steps=STEPS, weight_decay=decay, trust_coefficient=0.02, no_decay=("encoder/bias",)
    )
    params, buffers, seen = named(tree(0)), {}, []
    for step in range(STEPS):
        for name, gradient in named(gradients(step)).items():
            gradient = gradient + (0 if name == "encoder/bias" else decay) * params[name]
            ratio = 0.02 * np.linalg.norm(params[name]) / np.linalg.norm(gradient)
            buffers[name] = 0.9 * buffers.get(name, 0) + ratio * gradient
            params[name] = params[name] - cosine(step, 0.5, STEPS) * buffers[name]
        seen.append(dict(params))
    assert_same(follow(optimizer, tree(0)), seen)


def test_lars_leaves_norms_of_zero_unscaled():
    params = {"zero": jnp.zeros(4), "one": jnp.ones(4), "still": jnp.ones(4)}
    grads = {"zero": jnp.full(4, 3.0), "one": jnp.full(4, 3.0), "still": jnp.zeros(4)}
    optimizer = optim.lars(1.0, 256, decay_steps=10, trust_coefficient=0.01)
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    np.testing.assert_allclose(updates["zero"], -3.0 * np.ones(4))
    np.testing.assert_allclose(updates["one"], -0.01 * np.ones(4), rtol=1e-6)
    np.testing.assert_allclose(updates["still"], np.zeros(4))


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adam_is_the_written_out_update(decay):
    optimizer = optim.adam(0.01, 512, decay_steps=STEPS, warmup_steps=4, b1=0.8, b2=0.95, weight_decay=decay)
    params, first, second, seen = named(tree(0)), {}, {}, []
    for step in range(STEPS):
        for name, gradient in named(gradients(step)).items():
            first[name] = 0.8 * first.get(name, 0) + 0.2 * gradient
            second[name] = 0.95 * second.get(name, 0) + 0.05 * gradient**2
            direction = first[name] / (1 - 0.8 ** (step + 1))
            direction = direction / (np.sqrt(second[name] / (1 - 0.95 ** (step + 1))) + 1e-8)
            params[name] = params[name] - cosine(step, 0.02, STEPS, 4) * (direction + decay * params[name])
        seen.append(dict(params))
    assert_same(follow(optimizer, tree(0)), seen)


RATE, DECAY = schedules.Cosine(0.05, 0.001, steps=6), schedules.Linear(0.8, 0.99, steps=8, hold_steps=2)


def numpy_adam(rate_of, b2_of, *, b1, epsilon=1e-8, updates_per_step=1):
    """PyTorch's Adam written out in float64; the rate and the second decay are functions of the training step."""
    params = {name: value.astype(np.float64) for name, value in named(tree(0)).items()}
    first, second, seen = {}, {}, []
    for update in range(STEPS):
        step = update // updates_per_step
        for name, gradient in named(gradients(update)).items():
            first[name] = b1 * first.get(name, 0) + (1 - b1) * gradient
            second[name] = b2_of(step) * second.get(name, 0) + (1 - b2_of(step)) * gradient.astype(np.float64) ** 2
            root = np.sqrt(second[name] / (1 - b2_of(step) ** (update + 1))) + epsilon
            params[name] = params[name] - rate_of(step) * first[name] / (1 - b1 ** (update + 1)) / root
        seen.append(dict(params))
    return seen


def rate_by_hand(step):
    return 0.001 + 0.049 * (1 + math.cos(math.pi * min(1, step / 6))) / 2


def decay_by_hand(step):
    return 0.8 + 0.19 * min(1, max(0, step - 2) / 6)


@pytest.mark.parametrize(
    ("arguments", "theirs"),
    [
        ({"learning_rate": 0.02}, {"rate_of": lambda step: 0.02, "b2_of": lambda step: 0.999, "b1": 0.0}),
        (
            {"learning_rate": 0.02, "b1": 0.5, "b2": 0.9, "epsilon": 0.1},
            {"rate_of": lambda step: 0.02, "b2_of": lambda step: 0.9, "b1": 0.5, "epsilon": 0.1},
        ),
        ({"learning_rate": RATE, "b2": DECAY}, {"rate_of": rate_by_hand, "b2_of": decay_by_hand, "b1": 0.0}),
        (
            {"learning_rate": RATE, "b1": 0.5, "b2": DECAY, "epsilon": 0.1, "updates_per_step": 3},
            {"rate_of": rate_by_hand, "b2_of": decay_by_hand, "b1": 0.5, "epsilon": 0.1, "updates_per_step": 3},
        ),
    ],
)
def test_scheduled_adam_is_the_written_out_update(arguments, theirs):
    optimizer = optim.scheduled_adam(**arguments)
    assert_same(follow(optimizer, tree(0)), numpy_adam(**theirs), tolerance=1e-5)


def test_scheduled_adam_is_pytorchs_with_its_groups_changed_on_the_way():
    torch = pytest.importorskip("torch", reason="needs the parity extra: make test PARITY=1")
    theirs = {name: torch.tensor(value, requires_grad=True) for name, value in named(tree(0)).items()}
    peer = torch.optim.Adam(theirs.values(), lr=1.0, betas=(0.5, 0.5))
    seen = []
    for update in range(STEPS):
        peer.param_groups[0]["lr"] = rate_by_hand(update // 2)
        peer.param_groups[0]["betas"] = (0.5, decay_by_hand(update // 2))
        for name, gradient in named(gradients(update)).items():
            theirs[name].grad = torch.tensor(gradient)
        peer.step()
        seen.append({name: value.detach().numpy().copy() for name, value in theirs.items()})
    optimizer = optim.scheduled_adam(RATE, b1=0.5, b2=DECAY, updates_per_step=2)
    assert_same(follow(optimizer, tree(0)), seen, tolerance=1e-5)


@pytest.mark.parametrize("updates_per_step", [1, 4])
def test_the_reported_rate_of_scheduled_adam_is_the_applied_one(updates_per_step):
    # Gradients that never change make Adam's direction 1.
    optimizer = optim.scheduled_adam(RATE, b1=0.0, updates_per_step=updates_per_step)
    one = {"w": jnp.ones(1)}
    state = optimizer.init(one)
    for update in range(8 * updates_per_step):
        updates, state = optimizer.update(one, state, one)
        step = update // updates_per_step
        assert float(optimizer.learning_rate(jnp.int32(step))) == pytest.approx(-float(updates["w"][0]), rel=1e-4)
    assert float(optimizer.learning_rate(0)) == pytest.approx(0.05)
    assert float(optim.scheduled_adam(0.3).learning_rate(jnp.int32(7))) == pytest.approx(0.3)


@pytest.mark.parametrize("b2", [0.99, DECAY])
@pytest.mark.parametrize("rate", [0.1, RATE])
def test_the_state_of_scheduled_adam_keeps_its_form(rate, b2):
    optimizer = optim.scheduled_adam(rate, b2=b2)
    params = jax.tree.map(jnp.asarray, tree(0))
    before = jax.eval_shape(optimizer.init, params)
    after = jax.eval_shape(lambda p, s: optimizer.update(p, s, p)[1], params, before)
    assert jax.tree.structure(before) == jax.tree.structure(after)

    def form(leaf):
        return leaf.shape, leaf.dtype, leaf.weak_type

    assert jax.tree.map(form, before) == jax.tree.map(form, after)
    grown = jax.tree.leaves(before)
    assert sum(leaf.size for leaf in grown) <= 2 * sum(leaf.size for leaf in jax.tree.leaves(params)) + 8


def test_scheduled_adam_moves_bfloat16_parameters_and_keeps_them():
    # 0.999 is 1 in bfloat16: rounded to it, the second moment's decay would leave 0 / 0.
    params = {"w": jnp.ones(3, jnp.bfloat16)}
    optimizer = optim.scheduled_adam(0.1, b2=schedules.Cosine(0.999, 0.999, steps=5))
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    moved = optax.apply_updates(params, updates)["w"]
    assert moved.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(moved, np.float32), 0.9, atol=0.005)


def test_scheduled_adam_refuses_steps_without_an_update():
    with pytest.raises(UsageError, match="updates_per_step=0: a step makes at least 1 update"):
        optim.scheduled_adam(0.1, updates_per_step=0)
