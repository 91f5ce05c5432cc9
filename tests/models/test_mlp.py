import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import types
from ssl_jax.models import mlp

LABEL = np.array([0, 2, 1, 2], np.int32)


def vectors(width, seed=0):
    return np.random.default_rng(seed).normal(size=(4, width)).astype(np.float32)


def filled(network, *inputs):
    """Random variables, biases too."""
    template = jax.eval_shape(lambda key: network.init(key, *inputs, train=False), jax.random.key(0))
    generator = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: generator.normal(0, 0.4, leaf.shape).astype(np.float32), template)


def torch_answer(torch, variables, x, leak):
    """The same dense layers in PyTorch."""
    parts = []
    for name in sorted(variables["params"]):
        kernel = torch.tensor(variables["params"][name]["kernel"])
        layer = torch.nn.Linear(*kernel.shape)
        layer.weight.data, layer.bias.data = kernel.T, torch.tensor(variables["params"][name]["bias"])
        parts += [layer, torch.nn.LeakyReLU(leak)]
    return torch.nn.Sequential(*parts[:-1])(torch.tensor(x)).detach().numpy()


@pytest.mark.parametrize("classes", [None, 3])
def test_networks_equal_pytorchs(torch, classes):
    one_hot = np.zeros((4, 0), np.float32) if classes is None else np.eye(3, dtype=np.float32)[LABEL]
    label = None if classes is None else LABEL
    generator = mlp.Generator(2, (8, 6), classes)
    variables = filled(generator, vectors(5), label)
    points = generator.apply(variables, vectors(5), label, train=True)
    expected = torch_answer(torch, variables, np.concatenate([vectors(5), one_hot], axis=1), 0.0)
    np.testing.assert_allclose(points, expected, rtol=1e-5, atol=1e-5)
    assert (points.shape, points.dtype) == ((4, 2), np.float32)

    discriminator = mlp.Discriminator((8, 6), classes)
    variables = filled(discriminator, vectors(2), label)
    logits = discriminator.apply(variables, vectors(2), label, train=True)
    expected = torch_answer(torch, variables, np.concatenate([vectors(2), one_hot], axis=1), 0.2)
    np.testing.assert_allclose(logits, expected[:, 0], rtol=1e-5, atol=1e-5)
    assert (logits.shape, logits.dtype) == ((4,), np.float32)


def test_layers_start_by_he_and_the_last_by_lecun_and_there_are_no_statistics():
    variables = mlp.Generator(200, (200, 200)).init(jax.random.key(0), vectors(200), train=False)
    assert set(variables) == {"params"}
    for name, deviation in (("dense1", 0.1), ("dense2", 0.1), ("dense3", 0.5**0.5 / 10)):
        np.testing.assert_allclose(np.std(variables["params"][name]["kernel"]), deviation, rtol=0.03)
        assert np.all(variables["params"][name]["bias"] == 0)


def test_the_class_changes_the_answer_only_of_conditional_networks():
    for classes in (None, 3):
        for network, inputs in (
            (mlp.Generator(2, (8,), classes), vectors(5)),
            (mlp.Discriminator((8,), classes), vectors(2)),
        ):
            variables = network.init(jax.random.key(0), inputs, LABEL, train=False)
            one, other = (network.apply(variables, inputs, label, train=False) for label in (LABEL, (LABEL + 1) % 3))
            assert np.any(one != other) == (classes is not None)


def test_bfloat16_computes_narrow_and_answers_float32():
    for make, inputs in (
        (lambda dtype: mlp.Generator(2, (8,), dtype=dtype), vectors(5)),
        (lambda dtype: mlp.Discriminator((8,), dtype=dtype), vectors(2)),
    ):
        variables = make("bfloat16").init(jax.random.key(0), inputs, train=False)
        assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
        narrow, wide = (make(dtype).apply(variables, inputs, train=False) for dtype in ("bfloat16", "float32"))
        assert narrow.dtype == wide.dtype == np.float32
        assert 0 < np.abs(narrow - wide).max() < 0.05


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mlp.Generator(0), "the dense generator has widths"),
        (lambda: mlp.Generator(2, (4,), classes=0), "the dense generator classes is 0"),
        (lambda: mlp.Discriminator(()), "the dense discriminator has widths"),
        (lambda: mlp.Discriminator(dtype="half"), "dtype is 'half'"),
        (
            lambda: mlp.Discriminator().init(jax.random.key(0), jnp.zeros((2, 8, 8, 1)), train=False),
            r"takes vectors \[b, d\], not shape \(2, 8, 8, 1\)",
        ),
        (
            lambda: mlp.Generator(classes=3).init(jax.random.key(0), jnp.zeros((2, 4)), train=False),
            "the dense generator is conditional on 3 classes and was given no label",
        ),
    ],
)
def test_wrong_uses_are_refused_in_words(make, message):
    with pytest.raises(types.UsageError, match=message):
        make()
