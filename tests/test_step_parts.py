"""`experiments.step_parts`: its losses and gradients are the step's own, and `forward` computes no gradient."""

import jax
import numpy as np
import optax
import pytest

from configs import cyclegan_digits, gan_digits
from experiments import operations, step_parts
from ssl_jax import build, loop, rng
from tests import runs

SHAPE = (8, 8, 8, 1)


def simsiam():
    return runs.small_simsiam(16), ("view_1", "view_2")


def gan(**penalty):
    config = gan_digits.get_config()
    config.method.generator.channels, config.method.discriminator.channels = (8, 4), (4, 8)
    if penalty:
        config.method.regularizer = {"type": "regularizers.GradientPenalty", "r1": 1.0, **penalty}
    return config, ("image",)


def cyclegan():
    config = cyclegan_digits.get_config("identity")
    config.method.generator.width, config.method.generator.halvings = 4, 0
    config.method.channels_a = config.method.channels_b = 1
    return config, ("image_a", "image_b")


SETTINGS = {
    "simsiam": simsiam,
    "gan": gan,
    "gan with a penalty": lambda: gan(every=1),
    "gan with a lazy penalty": lambda: gan(every=4),
    "cyclegan": cyclegan,
}


@pytest.fixture(scope="module", params=SETTINGS)
def case(request):
    config, names = SETTINGS[request.param]()
    config = build.normalised(config.to_dict()) | {"evaluators": {}, "writers": {}}
    method = build.arguments(loop.fit, config, given=("folder", "config"))["method"]
    keys = jax.random.split(rng.stream(0, "images"), len(names))
    batch = {name: jax.random.normal(key, SHAPE) for name, key in zip(names, keys, strict=True)}
    state = method.init(rng.stream(0, "init"), jax.eval_shape(lambda: batch))
    return method, state, batch, rng.stream(0, "method")


def test_losses_and_gradients_are_those_of_the_step(case):
    method, state, batch, key = case
    after, told = jax.jit(method.step)(state, batch, key)
    metrics, gradients, *_ = jax.jit(step_parts.gradient(method))(state, batch, key)
    alone, *_ = jax.jit(step_parts.forward(method))(state, batch, key)
    # The generator of a GAN is judged by the discriminator that the same step has updated, which here stays.
    later = {name for name in told if "generator" in name and "discriminator" in state.opt}
    same = [name for name in told if "loss" in name or name == "penalty"]
    assert same and set(same) - later
    for name in set(same) - later:
        np.testing.assert_allclose([metrics[name], alone[name]], told[name], rtol=1e-5, err_msg=name)

    optimizers = {name.removesuffix("optimizer").strip("_") or "all" for name in vars(method) if "optimizer" in name}
    assert set(gradients) == {name if name in state.opt else f"{name}s" for name in optimizers}
    for name in set(gradients) - ({"generator"} if later else set()):
        field = "optimizer" if name == "all" else f"{name.removesuffix('s')}_optimizer"
        params = gradients[name]
        before = state.params[name] if name in state.params else {part: state.params[part] for part in params}
        updates, _ = getattr(method, field).update(gradients[name], state.opt[name], before)
        moved = after.params[name] if name in state.params else {part: after.params[part] for part in params}
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
            optax.apply_updates(before, updates),
            moved,
        )


def test_forward_computes_no_gradient_of_parameters(case):
    method, state, batch, key = case
    counts = [
        operations.count(jax.jit(part(method)).trace(state, batch, key).jaxpr)
        for part in (step_parts.forward, step_parts.gradient)
    ]
    # A layer's two gradients cost what its forward pass costs, each; the first layer has but one, and a penalty is made
    # of gradients. With those of the parameters it would be 1.
    assert 0.25 < counts[0] / counts[1] < 0.7
