"""What SimSiam refuses, and its ablations; its numbers are held to PyTorch's in test_simsiam_parity.py."""

import jax
import numpy as np
import pytest

from ssl_jax import losses, optim
from ssl_jax.methods.simsiam import SimSiam
from ssl_jax.models.convnet import ConvNet
from ssl_jax.models.heads import NoPredictor, Predictor, Projector
from ssl_jax.types import UsageError


def test_predictor_must_be_as_wide_as_the_projector():
    optimizer = optim.sgd(base_learning_rate=0.1, batch_size=4, decay_steps=10)
    encoder = ConvNet(channels=(4,), strides=(1,))
    method = SimSiam(encoder, Projector(8, 8, layers=2), Predictor(4, 6), optimizer)
    spec = {"view_1": jax.ShapeDtypeStruct((4, 8, 8, 1), np.float32)}
    with pytest.raises(UsageError, match="the predictor gives 6 numbers and the projector 8"):
        method.init(jax.random.key(0), spec)


def stepped(predictor, **ablation):
    """A method with its state before and after one update, the metrics of that update, and its batch."""
    optimizer = optim.sgd(base_learning_rate=8.0, batch_size=4, decay_steps=10, weight_decay=0.1)
    encoder = ConvNet(channels=(4,), strides=(1,))
    method = SimSiam(encoder, Projector(8, 8, layers=2), predictor, optimizer, **ablation)
    draw = np.random.default_rng(0)
    batch = {name: draw.normal(size=(4, 8, 8, 1)).astype(np.float32) for name in ("view_1", "view_2")}
    before = jax.jit(method.init)(jax.random.key(0), batch)
    after, metrics = jax.jit(method.step)(before, batch, jax.random.key(1))
    return method, before, after, metrics, batch


def moved(before, after, name):
    leaves = zip(jax.tree.leaves(before.params[name]), jax.tree.leaves(after.params[name]), strict=True)
    return max(float(np.abs(old - new).max()) for old, new in leaves)


def test_a_predictor_that_is_not_trained_stays_as_it_began():
    _, before, after, metrics, _ = stepped(Predictor(4, 8), train_predictor=False)
    assert moved(before, after, "predictor") == 0 and moved(before, after, "encoder") > 1e-3
    _, before, trained, as_trained, _ = stepped(Predictor(4, 8))
    assert moved(before, trained, "predictor") > 1e-3 and metrics["loss"] == as_trained["loss"]
    np.testing.assert_array_equal(
        jax.tree.leaves(after.params["encoder"])[0], jax.tree.leaves(trained.params["encoder"])[0]
    )


def test_without_a_predictor_projections_are_compared_with_one_another():
    method, before, after, metrics, batch = stepped(NoPredictor())
    assert before.params["predictor"] == after.params["predictor"] == {} and before.stats["predictor"] == {}
    assert moved(before, after, "projector") > 1e-4
    z_1, stats = method._project(before.params, before.stats, batch["view_1"])
    z_2, _ = method._project(before.params, stats, batch["view_2"])
    assert metrics["loss"] == pytest.approx(float(np.mean(losses.negative_cosine_similarity(z_1, z_2))), abs=1e-6)
