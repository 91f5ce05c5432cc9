import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import types
from ssl_jax.models import convolution


def from_pytorch(torch, module):
    """The weights and statistics of a PyTorch module under the names of its parts, in the layouts of this package."""
    params, stats = {}, {}

    def put(tree, path, leaves):
        for name in path:
            tree = tree.setdefault(name, {})
        tree.update({name: leaf.detach().numpy().copy() for name, leaf in leaves.items()})

    for name, part in module.named_modules():
        path = name.split(".") if name else []
        if isinstance(part, torch.nn.BatchNorm2d):
            put(stats, [*path, "norm"] if part.affine else path, {"mean": part.running_mean, "var": part.running_var})
            if part.affine:
                put(params, path, {"scale": part.weight, "bias": part.bias})
        elif isinstance(part, torch.nn.Conv2d | torch.nn.ConvTranspose2d | torch.nn.Linear | torch.nn.Embedding):
            spectral = torch.nn.utils.parametrize.is_parametrized(part)
            weight = part.parametrizations.weight.original if spectral else part.weight
            if spectral:
                norm = part.parametrizations.weight[0]
                v = norm._v.reshape(weight.shape[1:])
                put(stats, [*path, "spectral_norm"], {"u": norm._u, "v": v.movedim(0, -1).flatten()})
            if isinstance(part, torch.nn.Embedding):
                put(params, path, {"embedding": weight})
            else:
                put(params, path, {"kernel": weight.movedim((1, 0), (-2, -1))})
                if part.bias is not None:
                    put(params, path, {"bias": part.bias})
        elif "parametrizations" not in path:
            put(params, path, dict(part.named_parameters(recurse=False)))
    return params, stats


def nchw(torch, x):
    return torch.tensor(np.array(x)).permute(0, 3, 1, 2)


def nhwc(y):
    return y.detach().permute(0, 2, 3, 1).numpy()


def shapes(init):
    return jax.tree.map(jnp.shape, jax.eval_shape(init, jax.random.key(0)))


@pytest.mark.parametrize(
    ("kernel_px", "stride", "padding", "output_padding"), [(4, 2, 1, 0), (3, 2, 1, 1), (5, 3, 2, 0), (3, 1, 1, 0)]
)
def test_conv_transpose_equals_pytorchs(torch, kernel_px, stride, padding, output_padding):
    torch.manual_seed(0)
    reference = torch.nn.ConvTranspose2d(5, 3, kernel_px, stride, padding, output_padding)
    network = convolution.ConvTranspose(3, kernel_px, stride, padding, output_padding)
    params, _ = from_pytorch(torch, reference)
    y = np.random.default_rng(0).normal(size=(2, 6, 7, 5)).astype(np.float32)
    assert shapes(lambda key: network.init(key, y)["params"]) == jax.tree.map(jnp.shape, params)

    def loss(params, y):
        x = network.apply({"params": params}, y)
        return jnp.sum(x**2), x

    (_, x), (of_params, of_y) = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(params, y)
    torch_y = nchw(torch, y).requires_grad_()
    expected = reference(torch_y)
    expected.square().sum().backward()
    np.testing.assert_allclose(x, nhwc(expected), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(of_y, nhwc(torch_y.grad), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(of_params["kernel"], reference.weight.grad.permute(2, 3, 1, 0), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("kernel_px", "stride", "padding", "groups"), [(3, 1, None, 1), (4, 2, 1, 1), (1, 1, None, 1), (3, 2, 0, 2)]
)
def test_conv_equals_pytorchs(torch, kernel_px, stride, padding, groups):
    torch.manual_seed(0)
    torch_padding = kernel_px // 2 if padding is None else padding
    reference = torch.nn.Conv2d(4, 6, kernel_px, stride, torch_padding, groups=groups)
    network = convolution.Conv(6, kernel_px, stride, padding, groups)
    params, _ = from_pytorch(torch, reference)
    x = np.random.default_rng(0).normal(size=(2, 9, 8, 4)).astype(np.float32)
    assert shapes(lambda key: network.init(key, x, train=False)) == {"params": jax.tree.map(jnp.shape, params)}
    y = network.apply({"params": params}, x, train=True)
    np.testing.assert_allclose(y, nhwc(reference(nchw(torch, x))), rtol=1e-5, atol=1e-5)


def spectral_pair(torch, kind):
    """A PyTorch layer with a spectral norm, ours, and the input of both as numpy arrays."""
    torch.manual_seed(0)
    draw = np.random.default_rng(1).normal
    if kind == "conv":
        x = draw(size=(2, 6, 6, 4)).astype(np.float32)
        return torch.nn.Conv2d(4, 5, 3, 1, 1), convolution.Conv(5, spectral=True), x, x.transpose(0, 3, 1, 2).copy()
    if kind == "dense":
        x = draw(size=(2, 4)).astype(np.float32)
        return torch.nn.Linear(4, 5), convolution.Dense(5, spectral=True), x, x
    label = np.array([2, 0], np.int32)
    init = jax.nn.initializers.normal(1.0)
    return torch.nn.Embedding(3, 5), convolution.ClassEmbedding(3, 5, init, spectral=True), label, label


@pytest.mark.parametrize("kind", ["conv", "dense", "embedding"])
def test_spectral_norm_equals_pytorchs_over_training_steps_and_in_evaluation(torch, kind):
    reference, network, x, torch_x = spectral_pair(torch, kind)
    reference = torch.nn.utils.parametrizations.spectral_norm(reference)
    torch_x = torch.tensor(torch_x)
    optimizer = torch.optim.SGD(reference.parameters(), 0.5)
    params, stats = from_pytorch(torch, reference)
    expected = jax.tree.map(jnp.shape, {"params": params, "batch_stats": stats})
    assert shapes(lambda key: network.init(key, x, train=False)) == expected

    @jax.jit
    def step(params, stats):
        def loss(params):
            y, changed = network.apply({"params": params, "batch_stats": stats}, x, train=True, mutable=["batch_stats"])
            return jnp.sum(y**2), (y, changed["batch_stats"])

        return jax.grad(loss, has_aux=True)(params)

    for _ in range(3):
        gradients, (y, stats) = step(params, stats)
        params = jax.tree.map(lambda value, gradient: value - 0.5 * gradient, params, gradients)
        expected = reference(torch_x)
        optimizer.zero_grad()
        expected.square().sum().backward()
        optimizer.step()
        expected = nhwc(expected) if kind == "conv" else expected.detach().numpy()
        np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
        expected_params, expected_stats = from_pytorch(torch, reference)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), params, expected_params)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), stats, expected_stats)

    # The weights have moved since the last iteration: an evaluation must not take another.
    evaluated = network.apply({"params": params, "batch_stats": stats}, x, train=False)
    expected = reference.eval()(torch_x)
    expected = nhwc(expected) if kind == "conv" else expected.detach().numpy()
    np.testing.assert_allclose(evaluated, expected, rtol=1e-4, atol=1e-4)
    iterated = network.apply({"params": params, "batch_stats": stats}, x, train=True)
    assert np.abs(iterated - evaluated).max() > 5e-4


def test_spectral_norm_starts_near_the_largest_singular_value_and_changes_only_in_training():
    kernel = jax.random.normal(jax.random.key(0), (3, 3, 4, 6))
    norm = convolution.SpectralNorm()
    variables = norm.init(jax.random.key(1), kernel, train=False)
    largest = np.linalg.norm(np.reshape(norm.apply(variables, kernel, train=False), (-1, 6)), 2)
    assert 1 <= largest < 1.05
    _, changed = norm.apply(variables, kernel, train=False, mutable=["batch_stats"])
    jax.tree.map(np.testing.assert_array_equal, changed["batch_stats"], variables["batch_stats"])
    other, changed = norm.apply(variables, 2 * kernel + 1, train=True, mutable=["batch_stats"])
    assert np.abs(changed["batch_stats"]["u"] - variables["batch_stats"]["u"]).max() > 0.01
    # Without a place for the vectors it takes them along, for the answer alone.
    np.testing.assert_array_equal(norm.apply(variables, 2 * kernel + 1, train=True), other)


@pytest.mark.parametrize("classes", [None, 3])
def test_conditional_batch_norm_scales_each_image_by_its_class(torch, classes):
    generator = np.random.default_rng(0)
    x = generator.normal(1.0, 2.0, size=(5, 3, 4, 2)).astype(np.float32)
    label = np.array([0, 2, 1, 2, 0], np.int32)
    norm = convolution.ConditionalBatchNorm(classes, jax.nn.initializers.constant(0.5))
    variables = norm.init(jax.random.key(0), x, label, train=False)
    assert np.all(variables["params"]["scale"] == 0.5) and np.all(variables["params"]["bias"] == 0)
    shape = (2,) if classes is None else (3, 2)
    scale, bias = (generator.normal(size=shape).astype(np.float32) for _ in range(2))
    variables = {"params": {"scale": scale, "bias": bias}, "batch_stats": variables["batch_stats"]}
    reference = torch.nn.BatchNorm2d(2, affine=False)
    for train in (True, False):
        y, changed = norm.apply(variables, x, label, train=train, mutable=["batch_stats"])
        variables["batch_stats"] = changed["batch_stats"]
        expected = nhwc(reference.train(train)(nchw(torch, x)))
        for image in range(5):
            row = ... if classes is None else label[image]
            wanted = expected[image] * scale[row].reshape(1, 1, 2) + bias[row].reshape(1, 1, 2)
            np.testing.assert_allclose(y[image], wanted, rtol=1e-4, atol=1e-5)


def test_wrong_uses_are_refused_in_words():
    x = jnp.zeros((2, 8, 8, 4))
    with pytest.raises(types.UsageError, match="3 groups do not divide 4 and 6 channels"):
        convolution.Conv(6, groups=3).init(jax.random.key(0), x, train=False)
    for arguments, message in [
        ((0, "float32", (4,), 3), "net classes is 0; give None"),
        ((None, "float32", (), 3), r"net has widths \(\); give one layer"),
        ((None, "float32", (4, 0), 3), r"net has widths \(4, 0\)"),
        ((None, "float32", (4,), 4), "net image_channels is 4; choose one of 1, 3"),
        ((None, "float16", (4,), 3), "dtype is 'float16'"),
    ]:
        with pytest.raises(types.UsageError, match=message):
            convolution.check_network("net", *arguments)
    with pytest.raises(types.UsageError, match="net is conditional on 3 classes and was given no label"):
        convolution.check_label("net", None, 3)
