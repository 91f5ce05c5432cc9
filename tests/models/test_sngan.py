import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_convolution import from_pytorch, nchw, nhwc

from ssl_jax import types
from ssl_jax.models import sngan

LATENT, CLASSES = 5, 3
LABEL = np.array([0, 2, 1, 2], np.int32)


def latents():
    return np.random.default_rng(0).normal(size=(4, LATENT)).astype(np.float32)


def pictures(size_px=8, channels=3):
    return np.random.default_rng(1).uniform(-1, 1, size=(4, size_px, size_px, channels)).astype(np.float32)


def template(network, *inputs):
    return jax.eval_shape(lambda key: network.init(key, *inputs, LABEL, train=False), jax.random.key(0))


def shapes(network, *inputs):
    return jax.tree.map(jnp.shape, template(network, *inputs))


def torch_networks(torch):
    """The networks as in the original, with the operations in its order: shortcuts are resized at full width."""
    functional = torch.nn.functional

    class ClassNorm(torch.nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.norm = torch.nn.BatchNorm2d(channels, affine=False)
            self.scale = torch.nn.Parameter(1 + 0.2 * torch.randn(CLASSES, channels))
            self.bias = torch.nn.Parameter(0.2 * torch.randn(CLASSES, channels))

        def forward(self, x, label):
            return self.norm(x) * self.scale[label][:, :, None, None] + self.bias[label][:, :, None, None]

    class UpBlock(torch.nn.Module):
        def __init__(self, channels, conditional):
            super().__init__()
            self.conditional = conditional
            self.norm1, self.norm2 = ((ClassNorm if conditional else torch.nn.BatchNorm2d)(channels) for _ in range(2))
            self.conv1 = torch.nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
            self.conv2 = torch.nn.Conv2d(channels, channels, 3, 1, 1)
            self.shortcut_conv = torch.nn.Conv2d(channels, channels, 1)

        def forward(self, x, label):
            also = (label,) if self.conditional else ()
            y = self.conv1(functional.interpolate(torch.relu(self.norm1(x, *also)), scale_factor=2))
            y = self.conv2(torch.relu(self.norm2(y, *also)))
            return y + self.shortcut_conv(functional.interpolate(x, scale_factor=2))

    class Generator(torch.nn.Module):
        def __init__(self, channels, base_px, blocks, conditional):
            super().__init__()
            self.dense1 = torch.nn.Linear(LATENT, base_px * base_px * channels)
            for block in range(1, blocks + 1):
                setattr(self, f"block{block}", UpBlock(channels, conditional))
            self.norm = torch.nn.BatchNorm2d(channels)
            self.image = torch.nn.Conv2d(channels, 3, 3, 1, 1)
            self.base_px, self.blocks = base_px, blocks

        def forward(self, latent, label):
            x = self.dense1(latent).reshape(len(latent), self.base_px, self.base_px, -1).permute(0, 3, 1, 2)
            for block in range(1, self.blocks + 1):
                x = getattr(self, f"block{block}")(x, label)
            return torch.tanh(self.image(torch.relu(self.norm(x))))

    normed = torch.nn.utils.parametrizations.spectral_norm

    class DownBlock(torch.nn.Module):
        def __init__(self, inputs, channels, halves, first):
            super().__init__()
            self.conv1 = normed(torch.nn.Conv2d(inputs, channels, 3, 1, 1))
            self.conv2 = normed(torch.nn.Conv2d(channels, channels, 3, 1, 1))
            self.halves, self.first = halves, first
            if halves:
                self.shortcut_conv = normed(torch.nn.Conv2d(inputs, channels, 1))

        def forward(self, x):
            y = self.conv2(torch.relu(self.conv1(x if self.first else torch.relu(x))))
            if not self.halves:
                return y + x
            if self.first:
                return functional.avg_pool2d(y, 2) + self.shortcut_conv(functional.avg_pool2d(x, 2))
            return functional.avg_pool2d(y, 2) + functional.avg_pool2d(self.shortcut_conv(x), 2)

    class Discriminator(torch.nn.Module):
        def __init__(self, channels, conditional):
            super().__init__()
            self.block1 = DownBlock(3, channels, True, True)
            self.block2 = DownBlock(channels, channels, True, False)
            self.block3 = DownBlock(channels, channels, False, False)
            self.block4 = DownBlock(channels, channels, False, False)
            self.logit = normed(torch.nn.Linear(channels, 1))
            if conditional:
                self.class_embedding = normed(torch.nn.Embedding(CLASSES, channels))

        def forward(self, images, label):
            x = self.block4(self.block3(self.block2(self.block1(images))))
            x = torch.relu(x).sum((2, 3))
            logits = self.logit(x).flatten()
            if hasattr(self, "class_embedding"):
                logits = logits + (x * self.class_embedding(label)).sum(1)
            return logits

    torch.manual_seed(0)
    return Generator, Discriminator


def close(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, expected)


def trained_and_evaluated(network, variables, *inputs):
    """The answers of one training call and of an evaluation with the statistics that it leaves, and these."""

    @jax.jit
    def run(variables):
        trained, changed = network.apply(variables, *inputs, train=True, mutable=["batch_stats"])
        return trained, network.apply({**variables, **changed}, *inputs, train=False), changed["batch_stats"]

    return run(variables)


@pytest.mark.parametrize(("base_px", "blocks", "conditional"), [(4, 2, False), (7, 1, True)])
def test_generator_equals_pytorchs(torch, randomized, base_px, blocks, conditional):
    reference = randomized(torch_networks(torch)[0](6, base_px, blocks, conditional))
    params, stats = from_pytorch(torch, reference)
    variables = {"params": params, "batch_stats": stats}
    size_px = base_px * 2**blocks
    network = sngan.Generator(size_px, 3, 6, CLASSES if conditional else None)
    assert shapes(network, latents()) == jax.tree.map(jnp.shape, variables)
    trained, evaluated, changed = trained_and_evaluated(network, variables, latents(), LABEL)
    inputs = torch.tensor(latents()), torch.tensor(LABEL)
    close(trained, nhwc(reference.train()(*inputs)))
    close(changed, from_pytorch(torch, reference)[1])
    close(evaluated, nhwc(reference.eval()(*inputs)))
    assert (trained.shape, trained.dtype) == ((4, size_px, size_px, 3), np.float32) and np.abs(trained).max() < 1


@pytest.mark.parametrize("conditional", [False, True])
def test_discriminator_equals_pytorchs(torch, conditional):
    reference = torch_networks(torch)[1](6, conditional)
    params, stats = from_pytorch(torch, reference)
    variables = {"params": params, "batch_stats": stats}
    network = sngan.Discriminator(6, CLASSES if conditional else None)
    assert shapes(network, pictures()) == jax.tree.map(jnp.shape, variables)
    trained, evaluated, changed = trained_and_evaluated(network, variables, pictures(), LABEL)
    inputs = nchw(torch, pictures()), torch.tensor(LABEL)
    close(trained, reference.train()(*inputs).detach().numpy())
    close(changed, from_pytorch(torch, reference)[1])
    close(evaluated, reference.eval()(*inputs).detach().numpy())
    assert (trained.shape, trained.dtype) == ((4,), np.float32)


def test_parameter_counts_are_those_of_the_reference():
    """Of mimicry's 4,276,739 and 1,053,825, less the biases that batch norm cancels: 3 blocks of 256."""
    for network, inputs, expected in [
        (sngan.Generator(), jnp.zeros((4, 128)), 4_276_739 - 3 * 256),
        (sngan.Discriminator(), jnp.zeros((4, 32, 32, 3)), 1_053_825),
    ]:
        assert sum(leaf.size for leaf in jax.tree.leaves(template(network, inputs)["params"])) == expected


def test_sizes_choose_base_and_blocks():
    for size_px, base_px, blocks in ((8, 4, 1), (28, 7, 2), (32, 4, 3), (56, 7, 3), (64, 4, 4)):
        params = shapes(sngan.Generator(size_px, 1, 8), latents())["params"]
        assert params["dense1"]["bias"] == (base_px * base_px * 8,)
        assert sum(name.startswith("block") for name in params) == blocks


def bound(kernel, gain):
    """The largest value of Glorot's uniform distribution for a kernel."""
    window = kernel.shape[0] * kernel.shape[1] if kernel.ndim == 4 else 1
    return gain * (6 / (window * (kernel.shape[-2] + kernel.shape[-1]))) ** 0.5


def test_weights_start_by_glorot_with_gain_root_2_inside_the_blocks():
    networks = [(sngan.Generator(8, 3, 32, CLASSES), latents()), (sngan.Discriminator(32, CLASSES), pictures())]
    for network, inputs in networks:
        init = jax.jit(lambda key, network=network, inputs=inputs: network.init(key, inputs, LABEL, train=False))
        params = init(jax.random.key(0))["params"]
        for name, leaf in jax.tree_util.tree_leaves_with_path(params):
            path = jax.tree_util.keystr(name)
            if "kernel" in path or "embedding" in path:
                gain = 2**0.5 if "'conv" in path else 1.0
                np.testing.assert_allclose(np.abs(leaf).max(), bound(leaf, gain), rtol=0.1, err_msg=path)
            else:
                assert np.all(leaf == (1 if "scale" in path else 0)), path


def test_bfloat16_computes_narrow_and_answers_float32():
    for make, inputs in (
        (lambda dtype: sngan.Generator(8, 3, 8, CLASSES, dtype), latents()),
        (lambda dtype: sngan.Discriminator(8, CLASSES, dtype), pictures()),
    ):
        kept = template(make("bfloat16"), inputs)
        assert {leaf.dtype for leaf in jax.tree.leaves(kept)} == {jnp.dtype("float32")}
        draw = np.random.default_rng(2).normal
        variables = jax.tree.map(lambda leaf, draw=draw: np.abs(draw(0, 0.3, leaf.shape)).astype(np.float32), kept)

        def answer(variables, dtype, make=make, inputs=inputs):
            return make(dtype).apply(variables, inputs, LABEL, train=True, mutable=["batch_stats"])

        (narrow, kept), (wide, _) = (jax.jit(answer, static_argnums=1)(variables, d) for d in ("bfloat16", "float32"))
        assert narrow.dtype == wide.dtype == np.float32
        assert {leaf.dtype for leaf in jax.tree.leaves(kept)} == {jnp.dtype("float32")}
        assert 0 < np.abs(narrow - wide).mean() < 0.05 * np.abs(wide).mean()


def test_wrong_arguments_and_inputs_are_named():
    key = jax.random.key(0)
    for make, message in [
        (lambda: sngan.Generator(30), r"makes 4 or 7 times a power of 2 px \(8, 14, 16, 28, 32, ...\), not 30"),
        (lambda: sngan.Generator(4), "not 4"),
        (lambda: sngan.Generator(0), "not 0"),
        (lambda: sngan.Generator(32, 2), "image_channels is 2"),
        (lambda: sngan.Generator(32, 3, 0), r"SNGAN's generator has widths \(0,\)"),
        (lambda: sngan.Discriminator(classes=0), "SNGAN's discriminator classes is 0"),
        (lambda: sngan.Discriminator(dtype="half"), "dtype is 'half'"),
        (lambda: sngan.Discriminator(4).init(key, pictures(6), train=False), "takes multiples of 4 px, not 6x6"),
        (lambda: sngan.Discriminator(4, 3).init(key, pictures(), train=False), "was given no label"),
        (lambda: sngan.Generator(8, 1, 4, 3).init(key, latents(), train=False), "was given no label"),
    ]:
        with pytest.raises(types.UsageError, match=message):
            make()
