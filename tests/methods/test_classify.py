"""Classification: what is trained, at which rate and from which step on; what rests, bit for bit."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssl_jax import fingerprint, losses, optim
from ssl_jax.methods.classify import Classify
from ssl_jax.models.convnet import ConvNet
from ssl_jax.models.heads import Classifier
from ssl_jax.models.resnet import ResNet
from ssl_jax.types import UsageError

SPEC = {"image": jax.ShapeDtypeStruct((6, 8, 8, 3), jnp.float32)}
KEY = jax.random.key(0)


def sgd(rate=0.1, **more):
    return optim.sgd(rate, 256, 100, **{"momentum": 0.9, "weight_decay": 0.1, **more})


def classify(optimizer=None, *, norm="plain", **arguments):
    encoder = ConvNet(channels=(4, 6, 8), strides=(1, 2, 2))
    return Classify(encoder, Classifier(classes=3, norm=norm), optimizer or sgd(), **arguments)


def batch(step):
    key = jax.random.fold_in(KEY, step)
    return {"image": jax.random.normal(key, (6, 8, 8, 3)), "label": jnp.array([0, 1, 2, 0, 1, 2])}


def run(method, steps, state=None):
    """States before the first step and after each."""
    states = [method.init(KEY, SPEC) if state is None else state]
    step = jax.jit(method.step)
    for number in range(steps):
        states.append(step(states[-1], batch(number), KEY)[0])
    return states


def changed(before, after):
    leaves = jax.tree_util.tree_flatten_with_path(jax.tree.map(lambda a, b: bool((a != b).any()), before, after))[0]
    return {"/".join(part.key for part in path[:2]) for path, moved in leaves if moved}


ALL = {"head/dense1", *(f"encoder/{kind}{layer}" for kind in ("conv", "norm") for layer in (1, 2, 3))}


def test_a_probe_leaves_every_bit_of_the_encoder_alone_and_trains_the_head():
    states = run(classify(train="head"), 5)
    encoders = [fingerprint.sha256({"params": s.params["encoder"], "stats": s.stats["encoder"]}) for s in states]
    assert len(set(encoders)) == 1
    assert changed(states[0].params, states[1].params) == {"head/dense1"}
    assert changed(states[0].stats, states[1].stats) == {"head/norm1"}
    sizes = {leaf.size for leaf in jax.tree.leaves(states[0].opt)}
    assert sizes == {1, 3, 24}, "no momentum is kept for what is not trained"


def test_a_probe_is_logistic_regression_written_out():
    method = classify(sgd(weight_decay=0.0), norm="none", train="head")
    states = run(method, 3)
    features = method.exports["features"]
    kernel, bias = (states[0].params["head"]["dense1"][name] for name in ("kernel", "bias"))
    momentum = jax.tree.map(jnp.zeros_like, (kernel, bias))
    for step, after in enumerate(states[1:]):
        seen = features(states[0], batch(step)["image"])
        residual = jax.nn.softmax(seen @ kernel + bias[None]) - jax.nn.one_hot(batch(step)["label"], 3)
        gradient = (seen.T @ residual / 6, residual.mean(axis=0))
        momentum = jax.tree.map(lambda m, g: 0.9 * m + g, momentum, gradient)
        rate = 0.1 * 0.5 * (1 + np.cos(np.pi * step / 100))
        kernel, bias = kernel - rate * momentum[0], bias - rate * momentum[1]
        np.testing.assert_allclose(after.params["head"]["dense1"]["kernel"], kernel, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(after.params["head"]["dense1"]["bias"], bias, rtol=1e-4, atol=1e-6)


def test_stages_thaw_from_the_top_at_their_steps_and_not_one_before():
    states = run(classify(train="all", unfreeze=(2, 3)), 5)
    moved = [changed(before.params, after.params) for before, after in itertools.pairwise(states)]
    top = {"head/dense1", "encoder/conv3", "encoder/norm3"}
    assert moved == [{"head/dense1"}, {"head/dense1"}, top, ALL, ALL]
    assert all(changed(states[0].stats, state.stats) <= {"head/norm1"} for state in states)


def test_every_stage_can_have_a_time_of_its_own():
    states = run(classify(train="all", unfreeze=(0, 1, 2)), 3)
    moved = [changed(before.params, after.params) for before, after in itertools.pairwise(states)]
    assert [len(groups) for groups in moved] == [3, 5, 7]


@pytest.mark.parametrize("make", [lambda: sgd(), lambda: optim.adam(0.01, 256, 100)], ids=["sgd", "adam"])
def test_a_late_start_is_a_fresh_start(make):
    """Momentum, moments and bias correction of a stage begin when it does."""
    late = run(classify(make(), train="all", unfreeze=(2,)), 3)
    # The same parameters and schedule, but an optimiser that has seen nothing of the encoder.
    fresh = classify(make(), train="all")
    opt = fresh.init(KEY, SPEC).opt
    counts = jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.full_like(leaf, 2) if _is_schedule(path, opt) else leaf, opt
    )
    begin = late[2].replace(opt=counts)
    after = jax.jit(fresh.step)(begin, batch(2), KEY)[0]
    for moved, wanted in zip(
        jax.tree.leaves(late[3].params["encoder"]), jax.tree.leaves(after.params["encoder"]), strict=True
    ):
        np.testing.assert_allclose(moved, wanted, rtol=1e-6, atol=1e-7)
    assert changed(late[2].params, late[3].params) == ALL


def _is_schedule(path, opt):
    """Whether a leaf is the count of the rate's schedule: the last state of the chain that has a count of its own."""
    counts = [p for p, _ in jax.tree_util.tree_flatten_with_path(opt)[0] if "count" in jax.tree_util.keystr(p)]
    return path == counts[-1]


def test_rates_reach_the_parameters_they_are_meant_for():
    plain = sgd(momentum=0.0, weight_decay=0.0)
    whole = run(classify(plain, train="all", encoder_rate=1.0), 1)
    scaled = run(classify(plain, train="all", encoder_rate=0.1, layer_decay=0.5), 1)

    def moves(states):  # to within the rounding of parameters of size 1, 6e-8
        return jax.tree.map(lambda a, b: b - a, states[0].params, states[1].params)

    for network, group, factor in (
        ("head", "dense1", 1.0),
        ("encoder", "conv3", 0.1),
        ("encoder", "norm3", 0.1),
        ("encoder", "conv2", 0.05),
        ("encoder", "conv1", 0.025),
    ):
        for leaf, moved in moves(scaled)[network][group].items():
            np.testing.assert_allclose(moved, factor * moves(whole)[network][group][leaf], rtol=1e-3, atol=6e-8)


def test_batch_norm_in_fine_tuning_moves_only_where_it_is_told_to():
    running, by_batch = (run(classify(train="all", batch_norm=how), 1) for how in ("running", "batch"))
    assert changed(running[0].stats, running[1].stats) == {"head/norm1"}
    assert changed(by_batch[0].stats, by_batch[1].stats) == {"head/norm1", *(f"encoder/norm{k}" for k in (1, 2, 3))}


def test_metrics_are_those_of_the_batch():
    method = classify(train="all", norm="none")
    state = method.init(KEY, SPEC)
    _, metrics = method.step(state, batch(0), KEY)
    logits = method.exports["logits"](state, batch(0)["image"])
    labels = batch(0)["label"]
    np.testing.assert_allclose(metrics["loss"], losses.cross_entropy(logits, labels).mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["accuracy"], (logits.argmax(axis=1) == labels).mean(), rtol=1e-6)
    gradients = jax.grad(
        lambda p: losses.cross_entropy(
            method.exports["logits"](state.replace(params=p), batch(0)["image"]), labels
        ).mean()
    )(state.params)
    np.testing.assert_allclose(metrics["gradient_norm"], optax.tree.norm(gradients), rtol=1e-4)


@pytest.mark.parametrize(
    "network",
    [ConvNet(), ResNet(depth=18, width_multiplier=0.25), ResNet(depth=50, width_multiplier=0.25)],
    ids=["convnet", "resnet18", "resnet50"],
)
def test_stages_name_every_parameter_group_once(network):
    made = jax.eval_shape(
        lambda x: network.init(KEY, x, train=False), jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    )
    groups = [group for stage in network.stages for group in stage]
    assert sorted(groups) == sorted(made["params"])


@pytest.mark.parametrize(
    "arguments, says",
    [
        ({"train": "head", "unfreeze": (1,)}, 'goes with train="all"'),
        ({"train": "all", "unfreeze": (1,), "batch_norm": "batch"}, "batch_norm='batch'"),
        ({"train": "all", "unfreeze": (3, 1)}, "ascending"),
        ({"train": "all", "unfreeze": (1, 2, 3, 4)}, "3 stages"),
        ({"train": "all", "encoder_rate": -1.0}, "at least 0"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, says):
    with pytest.raises(UsageError, match=says):
        classify(**arguments)


def test_a_path_without_decay_that_names_nothing_is_refused():
    with pytest.raises(UsageError, match="no parameter lies under 'encodr'"):
        classify(sgd(no_decay=("encodr",)), train="all", unfreeze=(1,)).init(KEY, SPEC)


def test_fine_tuning_equals_pytorch():
    """Three updates of encoder and head with two rates, in PyTorch and here."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: make test PARITY=1")
    method = classify(sgd(weight_decay=1e-3), norm="none", train="all", encoder_rate=0.1, batch_norm="batch")
    states = run(method, 3)

    layers, before = [], 3
    for layer, (after, stride) in enumerate(((4, 1), (6, 2), (8, 2)), start=1):
        conv, norm = (
            torch.nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False),
            torch.nn.BatchNorm2d(after),
        )
        kernel = np.asarray(states[0].params["encoder"][f"conv{layer}"]["kernel"])
        conv.weight.data = torch.tensor(kernel.transpose(3, 2, 0, 1).copy())
        layers += [conv, norm, torch.nn.ReLU()]
        before = after
    encoder = torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    head = torch.nn.Linear(8, 3)
    dense = states[0].params["head"]["dense1"]
    head.weight.data, head.bias.data = (torch.tensor(np.asarray(dense[n]).T.copy()) for n in ("kernel", "bias"))
    groups = [{"params": encoder.parameters()}, {"params": head.parameters()}]
    optimizer = torch.optim.SGD(groups, 0.1, momentum=0.9, weight_decay=1e-3)
    for step in range(3):
        rate = 0.1 * 0.5 * (1 + np.cos(np.pi * step / 100))
        optimizer.param_groups[0]["lr"], optimizer.param_groups[1]["lr"] = 0.1 * rate, rate
        image = torch.tensor(np.asarray(batch(step)["image"]).transpose(0, 3, 1, 2).copy())
        loss = torch.nn.functional.cross_entropy(
            head(encoder(image)), torch.tensor(np.asarray(batch(step)["label"])).long()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = states[-1]
    np.testing.assert_allclose(after.params["head"]["dense1"]["kernel"], head.weight.detach().numpy().T, atol=1e-5)
    for layer, place in ((1, 0), (2, 3), (3, 6)):
        ours = np.asarray(after.params["encoder"][f"conv{layer}"]["kernel"]).transpose(3, 2, 0, 1)
        np.testing.assert_allclose(ours, encoder[place].weight.detach().numpy(), atol=1e-5)
        np.testing.assert_allclose(
            after.stats["encoder"][f"norm{layer}"]["var"], encoder[place + 1].running_var.numpy(), rtol=1e-4
        )
