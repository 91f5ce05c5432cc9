"""Batch norm by groups of the batch: against PyTorch, against one device a group, and what devices say meanwhile."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import types
from ssl_jax.models import layers
from ssl_jax.models.convnet import ConvNet
from ssl_jax.models.heads import Predictor, Projector
from ssl_jax.models.resnet import ResNet


def drawn(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).normal(1.0, 2.0, shape).astype(dtype)


def variables(channels):
    draw = np.random.default_rng(1)
    statistics = {"mean": draw.normal(size=channels), "var": draw.uniform(0.5, 1.5, channels)}
    params = {"scale": draw.uniform(0.5, 1.5, channels), "bias": draw.normal(size=channels)}
    return jax.tree.map(np.float32, {"params": params, "batch_stats": statistics})


@pytest.mark.parametrize("fast_variance", [True, False])
@pytest.mark.parametrize("shape", [(12, 3, 2, 5), (12, 5)])
@pytest.mark.parametrize("groups", [1, 3, 4])
def test_each_group_is_normalised_as_pytorch_would_alone(torch, groups, shape, fast_variance):
    given, images, cotangent = variables(5), drawn(*shape), drawn(*shape, seed=2)
    norm = layers.batch_norm(dtype="float32", name=None, fast_variance=fast_variance, groups=groups)

    @jax.jit
    def ours(params, images):
        inputs = {"params": params, "batch_stats": given["batch_stats"]}
        answer, pull, changed = jax.vjp(
            lambda p, x: norm.apply({**inputs, "params": p}, x, train=True, mutable=["batch_stats"]),
            params,
            images,
            has_aux=True,
        )
        return answer, pull(cotangent), changed["batch_stats"]

    answer, (params_gradient, images_gradient), changed = ours(given["params"], images)
    weight = torch.tensor(given["params"]["scale"], requires_grad=True)
    bias = torch.tensor(given["params"]["bias"], requires_grad=True)
    inputs, answers, statistics = torch.tensor(images, requires_grad=True), [], []
    for part in torch.chunk(inputs, groups):
        running = [torch.tensor(given["batch_stats"][name]) for name in ("mean", "var")]
        flat = part.reshape(-1, 5)
        answers.append(
            torch.nn.functional.batch_norm(flat, *running, weight, bias, True, 0.1, 1e-5).reshape(part.shape)
        )
        statistics.append(running)
    expected = torch.cat(answers)
    expected.backward(torch.tensor(cotangent))
    # Of three values that lie close together, mean of squares minus square of mean keeps fewer digits.
    tolerance = 1e-3 if fast_variance else 2e-5
    np.testing.assert_allclose(answer, expected.detach(), atol=tolerance)
    np.testing.assert_allclose(images_gradient, inputs.grad, atol=tolerance)
    np.testing.assert_allclose(params_gradient["scale"], weight.grad, atol=tolerance)
    np.testing.assert_allclose(params_gradient["bias"], bias.grad, atol=tolerance)
    for name, theirs in zip(("mean", "var"), zip(*statistics, strict=True), strict=True):
        np.testing.assert_allclose(changed[name], torch.stack(theirs).mean(0), atol=1e-5)


def test_one_group_is_the_program_without_groups():
    given, images = variables(5), drawn(6, 2, 2, 5)

    def program(groups):
        norm = layers.batch_norm(dtype="float32", name=None, groups=groups)
        return str(jax.make_jaxpr(lambda v: norm.apply(v, images, train=True, mutable=["batch_stats"]))(given))

    plain = layers.BatchNorm(dtype=jnp.float32)
    without = jax.make_jaxpr(lambda v: plain.apply(v, images, train=True, mutable=["batch_stats"]))(given)
    assert program(1) == str(without) != program(2)


def test_groups_change_nothing_in_evaluation_or_in_the_first_values():
    images = drawn(5, 2, 2, 3)  # a batch that the groups do not divide
    one, four = (layers.batch_norm(dtype="float32", name=None, groups=groups) for groups in (1, 4))
    first = one.init(jax.random.key(0), images, train=True)
    assert jax.tree.all(jax.tree.map(np.array_equal, first, four.init(jax.random.key(0), images, train=True)))
    np.testing.assert_array_equal(one.apply(first, images, train=False), four.apply(first, images, train=False))


def test_statistics_stay_wide_under_bfloat16():
    norm = layers.batch_norm(dtype="bfloat16", name=None, groups=2, fast_variance=False)
    # One part lies at 256, where bfloat16 tells only even numbers apart: their mean must not be rounded to one.
    images = jnp.asarray([[256.0], [258.0], [258.0], [0.0], [1.0], [2.0]], jnp.bfloat16)
    given = {"params": {"scale": np.ones(1, np.float32), "bias": np.zeros(1, np.float32)}}
    given["batch_stats"] = {"mean": np.zeros(1, np.float32), "var": np.zeros(1, np.float32)}
    answer, changed = norm.apply(given, images, train=True, mutable=["batch_stats"])
    assert answer.dtype == jnp.bfloat16
    np.testing.assert_allclose(answer[0, 0], -(2**0.5), rtol=0.01)
    assert {leaf.dtype for leaf in jax.tree.leaves(changed)} == {jnp.dtype("float32")}
    np.testing.assert_allclose(changed["batch_stats"]["mean"], 0.1 * (772 / 3 + 1) / 2, rtol=1e-6)
    np.testing.assert_allclose(changed["batch_stats"]["var"], 0.1 * (4 / 3 + 1) / 2, rtol=1e-5)


NETWORKS = {
    "resnet": (ResNet(stem="cifar", width_multiplier=1 / 16, norm_groups=2), (4, 8, 8, 3)),
    "bottlenecks": (ResNet(depth=50, stem="cifar", width_multiplier=1 / 64, norm_groups=2), (4, 8, 8, 3)),
    "convnet": (ConvNet(channels=(3, 4), strides=(1, 2), norm_groups=2), (4, 6, 6, 3)),
    "projector": (Projector(6, 5, norm_groups=2), (4, 3)),
    "predictor": (Predictor(6, 5, output_norm="affine", norm_groups=2), (4, 3)),
}


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "bottlenecks"])
def test_a_network_by_groups_is_the_network_on_each_group(name):
    network, shape = NETWORKS[name]
    inputs = drawn(*shape)
    given = jax.tree.map(lambda leaf: drawn(*leaf.shape, seed=leaf.size), shapes(network, inputs))
    alone = network.clone(norm_groups=1)

    @jax.jit
    def both(given, inputs):
        whole, changed = network.apply(given, inputs, train=True, mutable=["batch_stats"])
        parts = [alone.apply(given, part, train=True, mutable=["batch_stats"]) for part in jnp.split(inputs, 2)]
        mean = jax.tree.map(lambda a, b: (a + b) / 2, parts[0][1], parts[1][1])
        return (whole, changed), (jnp.concatenate([parts[0][0], parts[1][0]]), mean)

    whole, expected = both(given, inputs)
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3 * np.abs(other).max())


def shapes(network, inputs):
    return jax.eval_shape(lambda key: network.init(key, inputs, train=False), jax.random.key(0))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_norm_of_a_network_is_grouped(name):
    network, shape = NETWORKS[name]
    seen = {}

    def note(next_call, args, kwargs, context):
        if isinstance(context.module, layers.BatchNorm):
            seen[context.module.path] = context.module.groups
        return next_call(*args, **kwargs)

    with nn.intercept_methods(note):
        given = shapes(network.clone(norm_groups=7), jnp.zeros(shape))
    assert len(seen) == len(jax.tree.leaves(given["batch_stats"])) // 2 > 0 and set(seen.values()) == {7}


@pytest.mark.parametrize(
    ("groups", "shape", "message"),
    [
        (3, (8, 2), "norm_groups=3 does not divide a batch of 8 examples; the nearest is 2"),
        (0, (8, 2), "norm_groups=0 does not divide a batch of 8 examples; the nearest is 1"),
        (16, (8, 4, 4, 2), "norm_groups=16 does not divide a batch of 8 examples; the nearest is 8"),
        (8, (8, 2), r"norm_groups=8: batch norm needs more than one value a channel and group.*\(8, 2\)"),
    ],
)
def test_groups_that_cannot_be_are_refused(groups, shape, message):
    norm = layers.batch_norm(dtype="float32", name=None, groups=groups)
    with pytest.raises(types.UsageError, match=message):
        norm.apply(variables(2), drawn(*shape), train=True, mutable=["batch_stats"])


def test_eight_groups_on_eight_devices_are_each_devices_own_statistics_without_a_word(child):
    measured = json.loads(child(EIGHT, devices=8).stdout.splitlines()[-1])
    assert measured["difference"] < 1e-5 and measured["gradient_difference"] < 1e-4
    # The way through the networks and back, without parameters' gradients and running statistics.
    assert measured["passes"]["8"] == []
    assert len(measured["passes"]["1"]) >= 2 * measured["norms"]
    assert set(measured["passes"]["4"]) == {"all-reduce"}  # two devices a group exchange sums, never images
    # The whole step: gradients and running statistics of either view and the metrics, in one or two messages.
    assert {kind for kind, _ in measured["step"]} == {"all-reduce"} and len(measured["step"]) <= 2
    carried, needed = sum(numbers for _, numbers in measured["step"]), measured["needed"]
    assert needed <= carried <= 2 * needed + 32


EIGHT = '''
import json, re
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import PartitionSpec as P
from ssl_jax import mesh as meshes, optim
from ssl_jax.methods.simsiam import SimSiam
from ssl_jax.models.convnet import ConvNet
from ssl_jax.models.heads import Predictor, Projector

mesh = meshes.data_parallel()
split, everywhere = meshes.split(mesh), meshes.replicated(mesh)
draw = np.random.default_rng(0)
batch = {f"view_{k}": draw.normal(size=(32, 6, 6, 3)).astype(np.float32) for k in (1, 2)}


def method_of(groups):
    encoder = ConvNet(channels=(4, 5), strides=(1, 2), norm_groups=groups)
    heads = Projector(8, 8, layers=2, norm_groups=groups), Predictor(6, 8, norm_groups=groups)
    return SimSiam(encoder, *heads, optim.sgd(0.1, 32, decay_steps=9))


state = jax.jit(method_of(1).init, out_shardings=everywhere)(jax.random.key(0), batch)


def loss(method, views):
    z_1, _ = method._project(state.params, state.stats, views["view_1"])
    p_1, _ = method._apply("predictor", state.params, state.stats, z_1)
    return jnp.sum(jnp.sin(p_1), axis=1)  # of each image


def passes(method):
    def both(views):
        value, pull = jax.vjp(lambda v: loss(method, v), views)
        return value, pull(jnp.ones_like(value))[0]

    return jax.jit(both, in_shardings=split, out_shardings=split)


def collectives(compiled):
    """(kind, numbers that it carries) of every exchange between devices."""
    found = re.findall(r"= (.*?) (all-\\w+|collective-\\w+|reduce-scatter)(?:-start)?\\(", compiled.as_text())
    return [(kind, sum(map(numbers, re.findall(r"\\[([\\d,]*)\\]", shapes)))) for shapes, kind in found]


def numbers(shape):
    return int(np.prod([int(length) for length in shape.split(",") if length]))


grouped, alone = method_of(8), method_of(1)


def per_device(views):
    value, pull = jax.vjp(lambda v: loss(alone, v), views)
    return value, pull(jnp.ones_like(value))[0]


shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=split), batch)
spec = split.spec
expected = jax.jit(jax.shard_map(per_device, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False))(batch)
got = passes(grouped)(batch)
difference = float(jnp.abs(got[0] - expected[0]).max())
gradients = zip(jax.tree.leaves(got[1]), jax.tree.leaves(expected[1]))
gradient_difference = max(float(jnp.abs(a - b).max()) for a, b in gradients)


def step(groups):
    return jax.jit(
        method_of(groups).step, in_shardings=(everywhere, split, everywhere), out_shardings=(everywhere, everywhere)
    ).lower(state, batch, jax.random.key(0)).compile()


def size(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


compiled = {groups: passes(method_of(groups)).lower(shapes).compile() for groups in (1, 4, 8)}
print(json.dumps({
    "difference": difference,
    "gradient_difference": gradient_difference,
    "norms": len(jax.tree.leaves(state.stats)) // 2,
    "passes": {groups: [kind for kind, _ in collectives(program)] for groups, program in compiled.items()},
    "step": collectives(step(8)),
    "needed": size(state.params) + size(state.stats),
}))
'''
