import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import types
from ssl_jax.models import convnet


def test_outputs_and_running_statistics_equal_pytorchs(torch, randomized):
    channels, strides = (4, 6, 5), (1, 2, 2)
    parts = []
    for before, after, stride in zip((1, *channels[:-1]), channels, strides, strict=True):
        parts += [torch.nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)]
        parts += [torch.nn.BatchNorm2d(after), torch.nn.ReLU()]
    reference = randomized(torch.nn.Sequential(*parts))
    params, stats = {}, {}
    for layer in (1, 2, 3):
        conv, norm = reference[3 * layer - 3], reference[3 * layer - 2]
        params[f"conv{layer}"] = {"kernel": conv.weight.detach().permute(2, 3, 1, 0).numpy()}
        params[f"norm{layer}"] = {"scale": norm.weight.detach().numpy(), "bias": norm.bias.detach().numpy()}
        stats[f"norm{layer}"] = {"mean": norm.running_mean.numpy().copy(), "var": norm.running_var.numpy().copy()}
    network = convnet.ConvNet(channels=channels, strides=strides)
    variables = {"params": params, "batch_stats": stats}
    # An even side, where "SAME" would pad a stride of two on one side only.
    images = np.random.default_rng(0).normal(size=(5, 12, 12, 1)).astype(np.float32)
    torch_images = torch.tensor(images).permute(0, 3, 1, 2)
    evaluated = jax.jit(lambda v: network.apply(v, images, train=False))(variables)
    trained, changed = jax.jit(lambda v: network.apply(v, images, train=True, mutable=["batch_stats"]))(variables)
    with torch.no_grad():
        np.testing.assert_allclose(evaluated, reference.eval()(torch_images).mean((2, 3)).numpy(), atol=1e-5)
        np.testing.assert_allclose(trained, reference.train()(torch_images).mean((2, 3)).numpy(), atol=1e-5)
    for layer in (1, 2, 3):
        norm = reference[3 * layer - 2]
        np.testing.assert_allclose(changed["batch_stats"][f"norm{layer}"]["mean"], norm.running_mean, atol=1e-5)
        np.testing.assert_allclose(changed["batch_stats"][f"norm{layer}"]["var"], norm.running_var, atol=1e-5)


def test_the_demos_network_by_its_shapes():
    network = convnet.ConvNet()
    images = jnp.zeros((2, 12, 12, 1))
    template = jax.eval_shape(lambda key: network.init(key, images, train=False), jax.random.key(0))
    kernels = [template["params"][f"conv{layer}"]["kernel"].shape for layer in range(1, 6)]
    assert kernels == [(3, 3, 1, 32), (3, 3, 32, 32), (3, 3, 32, 64), (3, 3, 64, 64), (3, 3, 64, 128)]
    features = jax.eval_shape(lambda v: network.apply(v, images, train=False), template)
    assert (features.shape, features.dtype) == ((2, 128), jnp.float32)


def test_bfloat16_answers_float32():
    network = convnet.ConvNet(channels=(4,), strides=(1,), dtype="bfloat16")
    images = jnp.ones((2, 4, 4, 1))
    variables = network.init(jax.random.key(0), images, train=False)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert network.apply(variables, images, train=False).dtype == jnp.float32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": (8, 8), "strides": (1,)}, "2 channels and 1 strides; give one stride a layer"),
        ({"channels": (), "strides": ()}, "0 channels and 0 strides"),
        ({"channels": (8, 0), "strides": (1, 1)}, "must be at least 1"),
        ({"dtype": "half"}, "dtype is 'half'; choose one of"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(types.UsageError, match=message):
        convnet.ConvNet(**arguments)
