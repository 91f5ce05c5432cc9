import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_convolution import from_pytorch, nchw, nhwc

from ssl_jax import types
from ssl_jax.models import r3gan

LATENT, CLASSES, GROUP = 6, 3, 4
LABEL = np.array([0, 2, 1, 2], np.int32)


def latents():
    return np.random.default_rng(0).normal(size=(4, LATENT)).astype(np.float32)


def pictures(size_px=16, channels=3):
    return np.random.default_rng(1).uniform(-1, 1, size=(4, size_px, size_px, channels)).astype(np.float32)


def template(network, *inputs):
    return jax.eval_shape(lambda key: network.init(key, *inputs, LABEL, train=False), jax.random.key(0))


def shapes(network, *inputs):
    return jax.tree.map(jnp.shape, template(network, *inputs))


def torch_networks(torch):
    """Both networks after the paper's appendix and the reference's layout, of one block a stage here."""
    functional = torch.nn.functional
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    blur = (taps[:, None] * taps / 64)[None, None]

    def up(x):
        batch, channels, height, width = x.shape
        y = functional.conv_transpose2d(x.reshape(-1, 1, height, width), 4 * blur, stride=2, padding=1)
        return y.reshape(batch, channels, 2 * height, 2 * width)

    def down(x):
        batch, channels, height, width = x.shape
        y = functional.conv2d(x.reshape(-1, 1, height, width), blur, stride=2, padding=1)
        return y.reshape(batch, channels, height // 2, width // 2)

    def conv(inputs, outputs, kernel_px=1, groups=1, bias=False):
        return torch.nn.Conv2d(inputs, outputs, kernel_px, 1, kernel_px // 2, groups=groups, bias=bias)

    class Block(torch.nn.Module):
        def __init__(self, width):
            super().__init__()
            self.conv1 = conv(width, 2 * width, bias=True)
            self.conv2 = conv(2 * width, 2 * width, 3, 2 * width // GROUP, bias=True)
            self.conv3 = conv(2 * width, width)

        def forward(self, x):
            y = functional.leaky_relu(self.conv1(x), 0.2)
            return x + self.conv3(functional.leaky_relu(self.conv2(y), 0.2))

    class Generator(torch.nn.Module):
        def __init__(self, widths, base_px, conditional):
            super().__init__()
            self.conditional = conditional
            if conditional:
                self.class_embedding = torch.nn.Embedding(CLASSES, LATENT)
            self.latent = torch.nn.Linear(LATENT * (1 + conditional), widths[0], bias=False)
            self.basis = torch.nn.Parameter(torch.randn(1, base_px, base_px, widths[0]))
            for stage, width in enumerate(widths, start=1):
                if stage > 1 and width != widths[stage - 2]:
                    setattr(self, f"stage{stage}_width", conv(widths[stage - 2], width))
                setattr(self, f"stage{stage}_block1", Block(width))
            self.image, self.stages = conv(widths[-1], 3), len(widths)

        def forward(self, latent, label):
            if self.conditional:
                latent = torch.cat([latent, self.class_embedding(label)], 1)
            x = self.latent(latent)[:, :, None, None] * self.basis.permute(0, 3, 1, 2)
            for stage in range(1, self.stages + 1):
                x = getattr(self, f"stage{stage}_width", torch.nn.Identity())(x)
                x = getattr(self, f"stage{stage}_block1")(up(x) if stage > 1 else x)
            return self.image(x)

    class Discriminator(torch.nn.Module):
        def __init__(self, widths, base_px, conditional):
            super().__init__()
            self.image, self.stages = conv(3, widths[0]), len(widths)
            for stage, width in enumerate(widths, start=1):
                if stage > 1 and width != widths[stage - 2]:
                    setattr(self, f"stage{stage}_width", conv(widths[stage - 2], width))
                setattr(self, f"stage{stage}_block1", Block(width))
            self.basis = torch.nn.Parameter(torch.randn(base_px, base_px, widths[-1]) / base_px)
            self.logit = torch.nn.Linear(widths[-1], widths[-1] if conditional else 1, bias=False)
            if conditional:
                self.class_embedding = torch.nn.Embedding(CLASSES, widths[-1])

        def forward(self, images, label):
            x = self.image(images)
            for stage in range(1, self.stages + 1):
                x = getattr(self, f"stage{stage}_width", torch.nn.Identity())(down(x) if stage > 1 else x)
                x = getattr(self, f"stage{stage}_block1")(x)
            kernel = self.basis.permute(2, 0, 1)[:, None]
            x = self.logit(functional.conv2d(x, kernel, groups=x.shape[1]).flatten(1))
            return (x * self.class_embedding(label)).sum(1) if hasattr(self, "class_embedding") else x.flatten()

    torch.manual_seed(0)
    return Generator, Discriminator


@pytest.mark.parametrize(("widths", "base_px", "conditional"), [((8, 6, 6), 4, False), ((8, 4), 7, True)])
def test_generator_equals_pytorchs(torch, widths, base_px, conditional):
    reference = torch_networks(torch)[0](widths, base_px, conditional)
    params, _ = from_pytorch(torch, reference)
    size_px = base_px * 2 ** (len(widths) - 1)
    network = r3gan.Generator(size_px, 3, widths, 1, GROUP, CLASSES if conditional else None)
    assert shapes(network, latents()) == {"params": jax.tree.map(jnp.shape, params)}
    images = jax.jit(lambda params: network.apply({"params": params}, latents(), LABEL, train=True))(params)
    expected = nhwc(reference(torch.tensor(latents()), torch.tensor(LABEL)))
    np.testing.assert_allclose(images, expected, rtol=1e-4, atol=1e-4)
    assert (images.shape, images.dtype) == ((4, size_px, size_px, 3), np.float32)


@pytest.mark.parametrize(("widths", "base_px", "conditional"), [((4, 6, 6), 4, False), ((4, 8), 7, True)])
def test_discriminator_and_its_gradient_penalty_equal_pytorchs(torch, widths, base_px, conditional):
    reference = torch_networks(torch)[1](widths, base_px, conditional)
    params, _ = from_pytorch(torch, reference)
    images = pictures(base_px * 2 ** (len(widths) - 1))
    network = r3gan.Discriminator(widths, 1, GROUP, CLASSES if conditional else None)
    assert shapes(network, images) == {"params": jax.tree.map(jnp.shape, params)}

    def logits(params, images):
        return network.apply({"params": params}, images, LABEL, train=True)

    def penalty(params):
        return jnp.sum(jax.grad(lambda images: logits(params, images).sum())(images) ** 2)

    value, of_params = jax.jit(jax.value_and_grad(penalty))(params)
    torch_images = nchw(torch, images).requires_grad_()
    expected = reference(torch_images, torch.tensor(LABEL))
    np.testing.assert_allclose(jax.jit(logits)(params, images), expected.detach().numpy(), rtol=1e-4, atol=1e-4)
    (gradient,) = torch.autograd.grad(expected.sum(), torch_images, create_graph=True)
    wanted = gradient.square().sum()
    wanted.backward()
    np.testing.assert_allclose(value, wanted.item(), rtol=1e-4)
    for name, parameter in reference.named_parameters():
        if parameter.grad is not None and parameter.ndim == 4:
            layer = of_params
            for part in name.split(".")[:-1]:
                layer = layer[part]
            expected = parameter.grad.permute(2, 3, 1, 0).numpy()
            np.testing.assert_allclose(layer["kernel"], expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def count(network, *inputs):
    variables = template(network, *inputs)
    assert set(variables) == {"params"}
    return sum(leaf.size for leaf in jax.tree.leaves(variables))


def test_parameter_counts_are_the_published_ones():
    """20.78 M and 21.28 M with 10 classes."""
    assert count(r3gan.Generator(classes=10), jnp.zeros((4, 64))) == 20_781_952
    assert count(r3gan.Discriminator(classes=10), jnp.zeros((4, 32, 32, 3))) == 21_280_512
    assert count(r3gan.Generator(), jnp.zeros((4, 64))) == 20_781_952 - 10 * 64 - 64 * 768
    assert count(r3gan.Discriminator(), jnp.zeros((4, 32, 32, 3))) == 21_280_512 - 10 * 768 - 767 * 768


def test_blocks_start_as_the_identity_and_the_other_weights_by_their_fan_in():
    discriminator = r3gan.Discriminator((64, 64), 2, 16, 50)
    init = jax.jit(lambda key: discriminator.init(key, pictures(8), LABEL, train=False))
    params = init(jax.random.key(0))["params"]
    gain = (2 / 1.04) ** 0.5 * 4**-0.25
    for stage in (1, 2):
        for block in (1, 2):
            layers = params[f"stage{stage}_block{block}"]
            np.testing.assert_allclose(np.std(layers["conv1"]["kernel"]), gain / 64**0.5, rtol=0.05)
            np.testing.assert_allclose(np.std(layers["conv2"]["kernel"]), gain / (9 * 16) ** 0.5, rtol=0.05)
            assert np.all(layers["conv3"]["kernel"] == 0)
            assert np.all(layers["conv1"]["bias"] == 0) and np.all(layers["conv2"]["bias"] == 0)
    np.testing.assert_allclose(np.std(params["image"]["kernel"]), 1 / 3**0.5, rtol=0.2)
    np.testing.assert_allclose(np.std(params["basis"]), 1 / 4, rtol=0.1)
    np.testing.assert_allclose(np.std(params["logit"]["kernel"]), 1 / 8, rtol=0.05)
    np.testing.assert_allclose(np.std(params["class_embedding"]["embedding"]), 1 / 8 / 50**0.5, rtol=0.05)
    generator = r3gan.Generator(8, 3, (64, 64), 1, 16, 50)
    params = jax.jit(lambda key: generator.init(key, latents(), LABEL, train=False))(jax.random.key(0))["params"]
    np.testing.assert_allclose(np.std(params["basis"]), 1, rtol=0.1)
    np.testing.assert_allclose(np.std(params["latent"]["kernel"]), 1 / (2 * LATENT) ** 0.5, rtol=0.1)
    np.testing.assert_allclose(np.std(params["class_embedding"]["embedding"]), 1 / 50**0.5, rtol=0.2)


def test_resampling_keeps_constants_inside_and_one_is_the_others_transpose():
    up, down = jax.jit(r3gan.upsample), jax.jit(r3gan.downsample)
    ones = np.ones((1, 6, 8, 2), np.float32)
    np.testing.assert_allclose(up(ones)[:, 1:-1, 1:-1], np.ones((1, 10, 14, 2)), rtol=1e-6)
    np.testing.assert_allclose(down(ones)[:, 1:-1, 1:-1], np.ones((1, 1, 2, 2)), rtol=1e-6)
    x = np.random.default_rng(0).normal(size=(1, 3, 4, 2)).astype(np.float32)
    transposed = jax.vjp(down, ones)[1](x)[0]
    np.testing.assert_allclose(up(x), 4 * transposed, rtol=1e-5, atol=1e-6)


def test_bfloat16_computes_narrow_and_answers_float32():
    for make, inputs in (
        (lambda dtype: r3gan.Generator(8, 3, (8, 8), 1, GROUP, CLASSES, dtype), latents()),
        (lambda dtype: r3gan.Discriminator((8, 8), 1, GROUP, CLASSES, dtype), pictures(8)),
    ):
        kept = template(make("bfloat16"), inputs)
        assert {leaf.dtype for leaf in jax.tree.leaves(kept)} == {jnp.dtype("float32")}
        draw = np.random.default_rng(2).normal
        variables = jax.tree.map(lambda leaf, draw=draw: draw(0, 0.3, leaf.shape).astype(np.float32), kept)

        def answer(variables, dtype, make=make, inputs=inputs):
            return make(dtype).apply(variables, inputs, LABEL, train=True)

        narrow, wide = (jax.jit(answer, static_argnums=1)(variables, dtype) for dtype in ("bfloat16", "float32"))
        assert narrow.dtype == wide.dtype == np.float32
        assert 0 < np.abs(narrow - wide).max() < 0.05 * np.abs(wide).max()


def test_wrong_arguments_and_inputs_are_named():
    key = jax.random.key(0)
    for make, message in [
        (lambda: r3gan.Generator(30), "R3GAN's generator with 4 stages takes 32 or 56 px, not 30"),
        (lambda: r3gan.Generator(28, 1, (8, 8)), "with 2 stages takes 8 or 14 px, not 28"),
        (lambda: r3gan.Generator(32, 4), "image_channels is 4"),
        (lambda: r3gan.Generator(8, 1, (8, 7)), r"cannot split 2 \* 7 channels into groups of 16"),
        (lambda: r3gan.Discriminator((16,), blocks=0), "R3GAN's discriminator blocks is 0; give at least 1"),
        (lambda: r3gan.Discriminator((16,), channels_per_group=0), "into groups of 0"),
        (lambda: r3gan.Discriminator((16,), dtype="half"), "dtype is 'half'"),
        (lambda: r3gan.Discriminator((16, 16)).init(key, pictures(16), train=False), "takes 8 or 14 px, not 16x16"),
        (lambda: r3gan.Discriminator((16,), classes=3).init(key, pictures(4), train=False), "was given no label"),
        (lambda: r3gan.Generator(4, 1, (16,), classes=3).init(key, latents(), train=False), "was given no label"),
    ]:
        with pytest.raises(types.UsageError, match=message):
            make()
