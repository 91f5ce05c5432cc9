"""`experiments.step_parts`: its losses and gradients are the step's own, and `forward` computes no gradient."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import cyclegan_digits, gan_digits
from experiments import operations, step_parts
from ssl_jax import build, loop, optim, rng, types
from ssl_jax.methods.classify import Classify
from ssl_jax.models.convnet import ConvNet
from ssl_jax.models.heads import Classifier
from tests import runs

SHAPE = (8, 8, 8, 1)
LARGE = 1e3  # times a gradient is seen beside a parameter


def simsiam():
    return runs.small_simsiam(16), ("view_1", "view_2")


def gan(every=0, updates=1):
    config = gan_digits.get_config()
    config.method.generator.channels, config.method.discriminator.channels = (8, 4), (4, 8)
    config.method.discriminator_steps = updates
    config.method.regularizer = {"type": "regularizers.GradientPenalty", "r1": 1.0, "every": every} if every else None
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
    "gan of two updates": lambda: gan(updates=2),
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


def moved_by(method, name):
    """The method with `LARGE` gradients as the updates of one optimiser, and nothing as those of the others."""

    def update_by(factor):
        return lambda gradients, state, params: (jax.tree.map(lambda g: factor * g, gradients), state)

    fields = {field.name: getattr(method, field.name) for field in dataclasses.fields(method)}
    updates = {
        each: update_by(LARGE * (each == name)) for each, value in fields.items() if isinstance(value, optim.Optimizer)
    }
    return dataclasses.replace(
        method, **{each: fields[each]._replace(update=update) for each, update in updates.items()}
    )


def test_losses_and_gradients_are_those_of_the_step(case):
    method, state, batch, key = case
    order = {
        "SimSiam": ["optimizer"],
        "GAN": [*["discriminator_optimizer"] * getattr(method, "discriminator_steps", 1), "generator_optimizer"],
        "CycleGAN": ["generator_optimizer", "discriminator_optimizer"],
    }[type(method).__name__]
    told, found, *_ = jax.jit(step_parts.gradient(method))(state.replace(opt=dict.fromkeys(state.opt, ())), batch, key)
    alone, *_ = jax.jit(step_parts.forward(method))(state, batch, key)
    assert len(found) == len(order)
    for name in set(order):
        after, metrics = jax.jit(moved_by(method, name).step)(state, batch, key)
        changes = jax.tree.map(jnp.subtract, after.params, state.params)
        given = [gradients for each, gradients in zip(order, found, strict=True) if each == name]
        if len(given) > 1:
            continue  # later ones are taken where earlier ones moved to
        network = name.removesuffix("_optimizer")
        moved = changes[network] if network in changes else {part: changes[part] for part in given[0]}
        largest = [max(jnp.abs(leaf).max() for leaf in jax.tree.leaves(tree)) for tree in (given[0], moved)]
        assert largest[1] > 0
        off = jax.tree.map(lambda a, b: jnp.abs(LARGE * a - b).max(), given[0], moved)
        assert max(jax.tree.leaves(off)) < 1e-3 * largest[1], (name, largest)
        if name == order[-1]:  # the last moves nothing that the others are judged by
            losses = [each for each in metrics if "loss" in each or each == "penalty"]
            for loss in losses:
                np.testing.assert_allclose([told[loss], alone[loss]], metrics[loss], rtol=1e-4, err_msg=loss)


def test_parts_compute_what_the_step_does_and_forward_no_gradient_of_parameters(case):
    method, state, batch, key = case
    forward, gradient, step = (
        operations.count(jax.jit(part).trace(state, batch, key).jaxpr)
        for part in (step_parts.forward(method), step_parts.gradient(method), method.step)
    )
    assert gradient == step
    # A layer's two gradients cost what its forward pass costs, each; the first layer has but one, and a penalty is made
    # of gradients. With those of the parameters it would be 1.
    assert 0.25 < forward / gradient < 0.7


def fine_tuning(train):
    """What the part up to the gradients answers for a classifier, in shapes, and the classifier's state."""
    encoder, head = ConvNet(channels=(4,), strides=(2,)), Classifier(classes=3)
    method = Classify(encoder, head, optim.sgd(0.1, batch_size=8, decay_steps=10), train=train)
    batch = {"image": jnp.ones(SHAPE), "label": jnp.zeros(8, jnp.int32)}
    state = method.init(rng.stream(0, "init"), jax.eval_shape(lambda: batch))
    return jax.eval_shape(step_parts.gradient(method), state, batch, rng.stream(0, "method")), state


def test_only_what_is_trained_has_gradients():
    (_, found, *_), state = fine_tuning("head")
    assert jax.tree.structure(found) == jax.tree.structure([{"head": state.params["head"]}])


def test_an_optimiser_that_is_made_anew_is_refused():
    with pytest.raises(types.UsageError, match="Classify makes its optimiser anew"):
        fine_tuning("all")
