import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_convolution import from_pytorch, nchw, nhwc

from ssl_jax import types
from ssl_jax.models import dcgan

LATENT, CLASSES = 5, 3
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
    """The paper's networks at 16 px, whose first and last convolutions are 4x4 ones of a 1x1 map."""

    class ClassNorm(torch.nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.norm = torch.nn.BatchNorm2d(channels, affine=False)
            self.scale = torch.nn.Parameter(1 + 0.2 * torch.randn(CLASSES, channels))
            self.bias = torch.nn.Parameter(0.2 * torch.randn(CLASSES, channels))

        def forward(self, x, label):
            return self.norm(x) * self.scale[label][:, :, None, None] + self.bias[label][:, :, None, None]

    class Generator(torch.nn.Module):
        def __init__(self, conditional):
            super().__init__()
            self.dense1 = torch.nn.ConvTranspose2d(LATENT, 8, 4, 1, 0, bias=False)
            self.norm1 = ClassNorm(8) if conditional else torch.nn.BatchNorm2d(8)
            self.conv2 = torch.nn.ConvTranspose2d(8, 6, 4, 2, 1, bias=False)
            self.norm2 = ClassNorm(6) if conditional else torch.nn.BatchNorm2d(6)
            self.conv3 = torch.nn.ConvTranspose2d(6, 3, 4, 2, 1)
            self.conditional = conditional

        def forward(self, latent, label):
            also = (label,) if self.conditional else ()
            x = torch.relu(self.norm1(self.dense1(latent[:, :, None, None]), *also))
            x = torch.relu(self.norm2(self.conv2(x), *also))
            return torch.tanh(self.conv3(x))

    class Discriminator(torch.nn.Module):
        def __init__(self, norm, conditional):
            super().__init__()

            def normed(layer):
                return torch.nn.utils.parametrizations.spectral_norm(layer) if norm == "spectral" else layer

            self.conv1 = normed(torch.nn.Conv2d(3, 6, 4, 2, 1))
            self.conv2 = normed(torch.nn.Conv2d(6, 8, 4, 2, 1, bias=norm != "batch"))
            if norm == "batch":
                self.norm2 = torch.nn.BatchNorm2d(8)
            self.logit = normed(torch.nn.Conv2d(8, 1, 4, 1, 0))
            if conditional:
                self.class_embedding = normed(torch.nn.Embedding(CLASSES, 4 * 4 * 8))

        def forward(self, images, label):
            x = torch.nn.functional.leaky_relu(self.conv1(images), 0.2)
            x = self.conv2(x)
            x = torch.nn.functional.leaky_relu(self.norm2(x) if hasattr(self, "norm2") else x, 0.2)
            logits = self.logit(x).flatten()
            if hasattr(self, "class_embedding"):
                logits = logits + (x.permute(0, 2, 3, 1).flatten(1) * self.class_embedding(label)).sum(1)
            return logits

    torch.manual_seed(0)
    return Generator, Discriminator


def trained_and_evaluated(network, variables, *inputs):
    """The answers of one training call and of an evaluation with the statistics that it leaves, and these."""

    @jax.jit
    def run(variables):
        trained, changed = network.apply(variables, *inputs, train=True, mutable=["batch_stats"])
        return trained, network.apply({**variables, **changed}, *inputs, train=False), changed.get("batch_stats", {})

    return run(variables)


def close(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, expected)


@pytest.mark.parametrize("conditional", [False, True])
def test_generator_equals_pytorchs(torch, randomized, conditional):
    make, _ = torch_networks(torch)
    reference = randomized(make(conditional))

    def converted():
        params, stats = from_pytorch(torch, reference)
        kernel = params["dense1"]["kernel"]  # [4, 4, c, latent]
        return {**params, "dense1": {"kernel": kernel.transpose(3, 0, 1, 2).reshape(LATENT, -1)}}, stats

    params, stats = converted()
    network = dcgan.Generator(16, 3, (8, 6), CLASSES if conditional else None)
    variables = {"params": params, "batch_stats": stats}
    assert shapes(network, latents()) == jax.tree.map(jnp.shape, variables)
    trained, evaluated, changed = trained_and_evaluated(network, variables, latents(), LABEL)
    inputs = torch.tensor(latents()), torch.tensor(LABEL)
    close(trained, nhwc(reference.train()(*inputs)))
    close(changed, converted()[1])
    close(evaluated, nhwc(reference.eval()(*inputs)))
    assert trained.dtype == np.float32 and np.abs(trained).max() < 1


@pytest.mark.parametrize(
    ("norm", "conditional"), [("batch", False), ("batch", True), ("spectral", True), ("none", False)]
)
def test_discriminator_equals_pytorchs(torch, randomized, norm, conditional):
    _, make = torch_networks(torch)
    reference = randomized(make(norm, conditional))

    def converted():
        params, stats = from_pytorch(torch, reference)
        logit = {**params["logit"], "kernel": params["logit"]["kernel"].reshape(-1, 1)}
        return {**params, "logit": logit}, stats

    params, stats = converted()
    network = dcgan.Discriminator((6, 8), norm, CLASSES if conditional else None)
    variables = {"params": params, "batch_stats": stats} if stats else {"params": params}
    assert shapes(network, pictures()) == jax.tree.map(jnp.shape, variables)
    trained, evaluated, changed = trained_and_evaluated(network, variables, pictures(), LABEL)
    inputs = nchw(torch, pictures()), torch.tensor(LABEL)
    close(trained, reference.train()(*inputs).detach().numpy())
    close(changed, converted()[1])
    close(evaluated, reference.eval()(*inputs).detach().numpy())
    assert (trained.shape, trained.dtype) == ((4,), np.float32)


def count(network, *inputs):
    return sum(leaf.size for leaf in jax.tree.leaves(template(network, *inputs)["params"]))


def test_parameter_counts_are_those_of_pytorchs_example():
    """Its 3,576,704 and 2,765,568, and the biases that it leaves out: of the last layers and of the first."""
    generator = dcgan.Generator(64, 3, (512, 256, 128, 64))
    assert count(generator, jnp.zeros((4, 100))) == 3_576_704 + 3
    discriminator = dcgan.Discriminator((64, 128, 256, 512))
    assert count(discriminator, jnp.zeros((4, 64, 64, 3))) == 2_765_568 + 64 + 1


def test_28_px_grow_from_7_and_go_back():
    images = jax.eval_shape(
        lambda key: dcgan.Generator(28, 1, (8, 4)).init_with_output(key, latents(), train=False)[0], jax.random.key(0)
    )
    assert (images.shape, images.dtype) == ((4, 28, 28, 1), np.float32)
    logit = shapes(dcgan.Discriminator((4, 8)), pictures(28, 1))["params"]["logit"]
    assert logit["kernel"] == (7 * 7 * 8, 1)


def test_weights_start_with_the_papers_spread():
    variables = jax.jit(lambda key: dcgan.Generator(16, 3, (64, 64)).init(key, latents(), train=False))(
        jax.random.key(0)
    )
    for name in ("dense1", "conv2", "conv3"):
        np.testing.assert_allclose(np.std(variables["params"][name]["kernel"]), 0.02, rtol=0.1)
    scale = np.concatenate([variables["params"][name]["scale"] for name in ("norm1", "norm2")])
    assert abs(scale.mean() - 1) < 0.01 and 0.012 < scale.std() < 0.028
    assert all(np.all(variables["params"][name]["bias"] == 0) for name in ("norm1", "norm2", "conv3"))


def test_the_class_changes_the_answer_only_of_conditional_networks():
    for classes in (None, CLASSES):
        generator = dcgan.Generator(8, 1, (4,), classes)
        variables = generator.init(jax.random.key(0), latents(), LABEL, train=False)
        one, other = (generator.apply(variables, latents(), label, train=False) for label in (LABEL, (LABEL + 1) % 3))
        assert np.any(one != other) == (classes is not None)


def test_bfloat16_computes_narrow_and_answers_float32():
    for make, inputs in [
        (lambda dtype: dcgan.Generator(16, 3, (8, 6), dtype=dtype), latents()),
        (lambda dtype: dcgan.Discriminator((6, 8), dtype=dtype), pictures()),
        (lambda dtype: dcgan.Discriminator((6, 8), "spectral", dtype=dtype), pictures()),
    ]:
        kept = template(make("bfloat16"), inputs)
        assert {leaf.dtype for leaf in jax.tree.leaves(kept)} == {jnp.dtype("float32")}
        draw = np.random.default_rng(2).normal
        variables = jax.tree.map(lambda leaf, draw=draw: np.abs(draw(0, 0.3, leaf.shape)).astype(np.float32), kept)

        def answer(variables, dtype, make=make, inputs=inputs):
            return make(dtype).apply(variables, inputs, train=True, mutable=["batch_stats"])

        (narrow, kept), (wide, _) = (jax.jit(answer, static_argnums=1)(variables, d) for d in ("bfloat16", "float32"))
        assert narrow.dtype == wide.dtype == np.float32
        assert {leaf.dtype for leaf in jax.tree.leaves(kept)} == {jnp.dtype("float32")}
        assert 0 < np.abs(narrow - wide).mean() < 0.05 * np.abs(wide).mean()


def test_only_networks_with_norms_have_statistics():
    for norm, has in (("batch", True), ("spectral", True), ("none", False)):
        assert ("batch_stats" in template(dcgan.Discriminator((4, 6), norm), pictures())) == has


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: dcgan.Generator(30, 1, (8, 4)), "DCGAN's generator of 2 layers takes multiples of 4 px, not 30"),
        (lambda: dcgan.Generator(32, 2), "image_channels is 2; choose one of 1, 3"),
        (lambda: dcgan.Generator(32, 1, ()), "DCGAN's generator has widths"),
        (lambda: dcgan.Generator(32, 1, (4, 4), classes=0), "classes is 0"),
        (lambda: dcgan.Generator(32, 1, (4, 4), dtype="half"), "dtype is 'half'"),
        (lambda: dcgan.Discriminator((4,), "layer"), "norm is 'layer'; choose one of 'batch', 'spectral', 'none'"),
        (lambda: dcgan.Discriminator((0,)), "DCGAN's discriminator has widths"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(types.UsageError, match=message):
        make()


def test_wrong_inputs_are_named():
    key = jax.random.key(0)
    with pytest.raises(types.UsageError, match="discriminator of 3 layers takes multiples of 8 px, not 28x28"):
        dcgan.Discriminator((4, 4, 4)).init(key, pictures(28), train=False)
    for network, inputs in (
        (dcgan.Generator(8, 1, (4,), 3), latents()),
        (dcgan.Discriminator((4,), "none", 3), pictures()),
    ):
        with pytest.raises(types.UsageError, match="conditional on 3 classes and was given no label"):
            network.init(key, inputs, train=False)
