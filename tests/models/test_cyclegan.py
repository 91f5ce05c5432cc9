"""CycleGAN's networks against PyTorch ones that follow the reference layer by layer, and against their own numbers."""

import cyclegan_reference as reference
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import types
from ssl_jax.models import cyclegan


def pictures(size=32, channels=3, batch=2, seed=0):
    shape = (batch, *((size, size) if isinstance(size, int) else size), channels)
    return np.random.default_rng(seed).uniform(-1, 1, size=shape).astype(np.float32)


def spec_of(network, size_px, channels=3):
    images = jax.ShapeDtypeStruct((1, size_px, size_px, channels), jnp.float32)
    return jax.eval_shape(network.init, jax.random.key(0), images)["params"]


def drawn(network, size_px):
    """Parameters that make every layer matter, biases among them."""
    draw = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: draw.normal(0, 0.2, leaf.shape).astype(np.float32), spec_of(network, size_px))


def count(network, size_px):
    return sum(leaf.size for leaf in jax.tree.leaves(spec_of(network, size_px)))


def paths(network):
    """Where our convolutions lie, in the order in which PyTorch's modules are met."""
    if isinstance(network, cyclegan.PatchGAN):
        return [(f"conv{number}",) for number in range(1, network.strides + 3)]
    if isinstance(network, cyclegan.UNetGenerator):
        levels = range(1, network.halvings + 1)
        return [(f"down{level}",) for level in levels] + [(f"up{level}",) for level in reversed(levels)]
    blocks = [(f"block{i}", name) for i in range(1, network.blocks + 1) for name in ("conv1", "conv2")]
    down, up = ([(f"{way}{i}",) for i in range(1, network.halvings + 1)] for way in ("down", "up"))
    return [("stem",), *down, *blocks, *up, ("head",)]


def tree_of(module, network, leaf=lambda parameter: parameter):
    """A PyTorch module's weights, or what `leaf` takes of them, as our parameter tree."""
    convolutions = [part for part in module.modules() if type(part).__name__ in ("Conv2d", "ConvTranspose2d")]
    flat = {}
    for path, part in zip(paths(network), convolutions, strict=True):
        flat[*path, "kernel"] = np.moveaxis(leaf(part.weight).detach().numpy(), (1, 0), (-2, -1)).copy()
        flat[*path, "bias"] = leaf(part.bias).detach().numpy().copy()
    return flax.traverse_util.unflatten_dict(flat)


def randomly(torch, module):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.0, 0.2, generator=generator)
    return module


def zeros_around(torch, module):
    """The module with zeros wherever it mirrors."""
    for part in list(module.modules()):
        for name, child in list(part.named_children()):
            if isinstance(child, torch.nn.ReflectionPad2d):
                setattr(part, name, torch.nn.ZeroPad2d(child.padding))
    return module


def nchw(torch, x):
    return torch.tensor(np.array(x)).permute(0, 3, 1, 2)


def nhwc(y):
    return y.detach().permute(0, 2, 3, 1).numpy()


def answer_of(torch, module, images):
    found = nhwc(module(nchw(torch, images)))
    return found[..., 0] if type(module).__name__ == "Discriminator" else found


CASES = {
    "2 blocks": (lambda t: reference.generator(t, width=4, blocks=2), cyclegan.ResNetGenerator(3, 4, 2), 32),
    "6 blocks, oblong, to grey": (
        lambda t: reference.generator(t, 3, 1, 6, 6),
        cyclegan.ResNetGenerator(1, 6, 6),
        (16, 28),
    ),
    "1 halving, 3 px": (
        lambda t: reference.generator(t, width=4, blocks=2, halvings=1, outer_px=3),
        cyclegan.ResNetGenerator(3, 4, 2, halvings=1, outer_px=3),
        14,
    ),
    "resize": (
        lambda t: reference.generator(t, width=4, blocks=2, resize=True),
        cyclegan.ResNetGenerator(3, 4, 2, upsampling="resize"),
        16,
    ),
    "zeros": (
        lambda t: zeros_around(t, reference.generator(t, width=4, blocks=2)),
        cyclegan.ResNetGenerator(3, 4, 2, border="zeros"),
        16,
    ),
    "resize, zeros": (
        lambda t: zeros_around(t, reference.generator(t, width=4, blocks=1, resize=True)),
        cyclegan.ResNetGenerator(3, 4, 1, upsampling="resize", border="zeros"),
        16,
    ),
    "U-Net of 5": (lambda t: reference.unet(t, width=3, halvings=5), cyclegan.UNetGenerator(3, 3, 5), 32),
    "U-Net of 6, oblong, to grey": (
        lambda t: reference.unet(t, 3, 1, 2, 6),
        cyclegan.UNetGenerator(1, 2, 6),
        (64, 128),
    ),
    "1 stride": (lambda t: reference.discriminator(t, width=4, strides=1), cyclegan.PatchGAN(4, 1), 16),
    "2 strides, oblong": (lambda t: reference.discriminator(t, width=4, strides=2), cyclegan.PatchGAN(4, 2), (32, 45)),
    "3 strides": (lambda t: reference.discriminator(t, width=4), cyclegan.PatchGAN(4, 3), 64),
    "4 strides": (lambda t: reference.discriminator(t, width=2, strides=4), cyclegan.PatchGAN(2, 4), 64),
    "no norm": (
        lambda t: reference.discriminator(t, width=4, norm=lambda features: t.nn.Identity()),
        cyclegan.PatchGAN(4, norm="none"),
        32,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_answers_and_gradients_are_pytorchs(torch, case):
    make, network, size = CASES[case]
    module = randomly(torch, make(torch))
    params, images = tree_of(module, network), pictures(size)
    found = jax.jit(network.apply)({"params": params}, images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, answer_of(torch, module, images), rtol=1e-4, atol=1e-4)

    module.double()
    weights = np.random.default_rng(2).normal(size=found.shape)
    given = nchw(torch, images.astype(np.float64)).requires_grad_()
    answer = module(given)
    expected = nhwc(answer)
    torch.sum(answer * nchw(torch, weights if weights.ndim == 4 else weights[..., None])).backward()
    with jax.enable_x64(True):
        wide = network.clone(dtype="float64")

        @jax.jit
        def run(params, images):
            def loss(params, images):
                made = wide.apply({"params": params}, images)
                return jnp.sum(made * weights), made

            return jax.value_and_grad(loss, (0, 1), has_aux=True)(params, images)

        (_, made), (of_params, of_images) = run(tree_of(module, network), images.astype(np.float64))
    assert made.dtype == np.float64
    np.testing.assert_allclose(made, expected.reshape(made.shape), rtol=1e-9, atol=1e-9)
    for found, theirs in (
        (of_params, tree_of(module, network, lambda parameter: parameter.grad)),
        (of_images, nhwc(given.grad)),
    ):
        largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(theirs))
        assert largest > 0.1
        jax.tree.map(lambda a, b, n=largest: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-11 * n), found, theirs)


@pytest.mark.parametrize("name", ["generator", "discriminator"])
def test_the_defaults_are_pytorchs_at_64_px(torch, name):
    """The whole width and depth, 9 blocks, with weights as they start."""
    module, network = {
        "generator": lambda: (reference.generator(torch), cyclegan.ResNetGenerator()),
        "discriminator": lambda: (reference.discriminator(torch), cyclegan.PatchGAN()),
    }[name]()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.0, 0.02, generator=generator)
        images = pictures(64, batch=1)
        expected = answer_of(torch, module, images)
    found = jax.jit(network.apply)({"params": tree_of(module, network)}, images)
    assert np.std(expected) > 0.01
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_parameter_counts_are_the_published_ones():
    assert count(cyclegan.ResNetGenerator(), 16) == 11_378_179
    assert count(cyclegan.ResNetGenerator(blocks=6), 16) == 7_837_699
    assert count(cyclegan.PatchGAN(), 64) == 2_764_737
    assert count(cyclegan.UNetGenerator(), 256) == 54_409_603


@pytest.mark.parametrize("halvings", [7, 8])
def test_the_unet_has_as_many_parameters_as_pytorchs(torch, halvings):
    with torch.device("meta"):
        module = reference.unet(torch, halvings=halvings)
    expected = sum(parameter.numel() for parameter in module.parameters())
    assert count(cyclegan.UNetGenerator(halvings=halvings), 2**halvings) == expected


def normalised(x):
    x = np.asarray(x, np.float64)
    centred = x - x.mean((1, 2), keepdims=True)
    return centred / np.sqrt(np.mean(centred**2, (1, 2), keepdims=True) + 1e-5)


def test_instance_norm_is_pytorchs(torch):
    x = np.random.default_rng(0).normal(3.0, [1e-3, 0.1, 5.0], size=(2, 5, 7, 3))
    with jax.enable_x64(True):
        found = cyclegan.instance_norm(jnp.asarray(x))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, nhwc(torch.nn.InstanceNorm2d(3)(nchw(torch, x))), rtol=1e-9, atol=1e-12)
    found = cyclegan.instance_norm(jnp.asarray(x, jnp.float32))
    assert found.dtype == np.float32
    narrow = nhwc(torch.nn.InstanceNorm2d(3)(nchw(torch, x.astype(np.float32))))
    np.testing.assert_allclose(found, narrow, rtol=1e-3, atol=1e-3)


def test_instance_norm_keeps_its_digits_far_from_zero():
    """In one pass, mean of squares minus square of mean, float32 would have no digit left here."""
    x = np.random.default_rng(0).normal(loc=[0, 1e3, -3e3], size=(2, 16, 16, 3)).astype(np.float32)
    np.testing.assert_allclose(cyclegan.instance_norm(x), normalised(x), atol=2e-3)
    x = jnp.asarray(x[..., :2] + 20, jnp.bfloat16)
    found = cyclegan.instance_norm(x)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(np.float32), normalised(x), rtol=2**-8, atol=2e-3)


def test_instance_norm_of_a_flat_map_is_zero():
    assert np.all(cyclegan.instance_norm(jnp.full((1, 4, 4, 2), 7.0)) == 0)


@pytest.mark.parametrize(("margin_px", "size"), [(1, (2, 5)), (3, (4, 6)), (3, (9, 8))])
def test_mirrored_margins_and_their_gradient_are_pytorchs(torch, margin_px, size):
    x = pictures(size)
    theirs = nchw(torch, x).requires_grad_()
    expected = torch.nn.ReflectionPad2d(margin_px)(theirs)
    weights = np.random.default_rng(1).normal(size=nhwc(expected).shape).astype(np.float32)
    expected.backward(nchw(torch, weights))
    found, pull = jax.vjp(lambda x: cyclegan.reflected(x, margin_px), x)
    np.testing.assert_array_equal(found, nhwc(expected))
    np.testing.assert_allclose(pull(jnp.asarray(weights))[0], nhwc(theirs.grad), atol=1e-6)


def test_maps_of_the_patchgan():
    network = cyclegan.PatchGAN()
    given = {"params": spec_of(network, 256)}, jax.ShapeDtypeStruct((2, 256, 256, 3), jnp.float32)
    logits, kept = jax.eval_shape(
        lambda variables, x: network.apply(variables, x, capture_intermediates=True, mutable=["intermediates"]), *given
    )
    kept = kept["intermediates"]
    assert [kept[f"conv{i}"]["__call__"][0].shape[1:] for i in range(1, 6)] == [
        (128, 128, 64),
        (64, 64, 128),
        (32, 32, 256),
        (31, 31, 512),
        (30, 30, 1),
    ]
    assert (logits.shape, logits.dtype) == ((2, 30, 30), np.float32)


@pytest.mark.parametrize(("strides", "patch_px", "first_px"), [(1, 16, -5), (2, 34, -11), (3, 70, -23)])
def test_a_logit_sees_one_patch(strides, patch_px, first_px):
    """Exactly the pixels that have a gradient, without the norm, by which every pixel matters a little."""
    network, size_px, row, column = cyclegan.PatchGAN(1, strides, "none"), 112, 50 // 2**strides, 56 // 2**strides
    params = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.1, np.float32), spec_of(network, size_px, 1))

    def logit(image):
        return network.apply({"params": params}, image)[0, row, column]

    seen = np.asarray(jax.jit(jax.grad(logit))(pictures(size_px, 1, 1)))[0, :, :, 0] != 0
    expected = np.zeros_like(seen)
    top, left = (2**strides * place + first_px for place in (row, column))
    assert top >= 0 and left + patch_px <= size_px
    expected[top : top + patch_px, left : left + patch_px] = True
    np.testing.assert_array_equal(seen, expected)


@pytest.mark.parametrize(
    ("network", "size_px"),
    [
        (cyclegan.ResNetGenerator(width=32, blocks=1), 16),
        (cyclegan.ResNetGenerator(width=32, blocks=1, upsampling="resize", deviation=0.002), 16),
        (cyclegan.UNetGenerator(width=32, halvings=3, deviation=0.1), 16),
        (cyclegan.PatchGAN(width=32), 32),
    ],
)
def test_weights_start_with_the_deviation_and_biases_at_zero(network, size_px):
    params = jax.jit(network.init)(jax.random.key(0), pictures(size_px))["params"]
    for path, leaf in flax.traverse_util.flatten_dict(params).items():
        if path[-1] == "bias":
            assert np.all(leaf == 0), path
        else:
            values = np.asarray(leaf) / network.deviation
            assert abs(values.mean()) < 5 / values.size**0.5, path
            assert abs(values.std() - 1) < 5 / (2 * values.size) ** 0.5, path
            # A truncated normal of the same deviation would end near 2.3.
            assert values.size < 4000 or np.abs(values).max() > 3, path
    defaults = cyclegan.ResNetGenerator(), cyclegan.UNetGenerator(), cyclegan.PatchGAN()
    assert {network.deviation for network in defaults} == {0.02}


SMALL = {
    "generator": (cyclegan.ResNetGenerator(width=4, blocks=2), 16),
    "resize": (cyclegan.ResNetGenerator(width=4, blocks=2, upsampling="resize", border="zeros"), 16),
    "U-Net": (cyclegan.UNetGenerator(width=4, halvings=3), 16),
    "PatchGAN": (cyclegan.PatchGAN(width=4), 32),
}


@pytest.mark.parametrize("name", SMALL)
def test_an_image_does_not_feel_the_others_of_its_batch(name):
    network, size_px = SMALL[name]
    params, images = drawn(network, size_px), pictures(size_px, batch=4)
    apply = jax.jit(network.apply)
    together = np.asarray(apply({"params": params}, images))
    others = np.asarray(apply({"params": params}, np.concatenate([images[:1], np.roll(images[1:], 1, 0)])))
    np.testing.assert_array_equal(together[0], others[0])
    assert np.abs(together[1:] - others[1:]).max() > 1e-3
    np.testing.assert_allclose(together[:1], apply({"params": params}, images[:1]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_bfloat16_computes_narrow_and_answers_float32(name):
    wide, size_px = SMALL[name]
    narrow, params, images = wide.clone(dtype="bfloat16"), drawn(wide, size_px), pictures(size_px)
    assert {leaf.dtype for leaf in jax.tree.leaves(spec_of(narrow, size_px))} == {np.dtype("float32")}
    found, expected = (jax.jit(network.apply)({"params": params}, images) for network in (narrow, wide))
    assert found.dtype == expected.dtype == np.float32
    assert 1e-4 < np.abs(found - expected).mean() < 0.1 * np.abs(expected).mean()


def test_generators_answer_images_of_the_size_given():
    for network, size in ((SMALL["generator"][0], (20, 36)), (SMALL["U-Net"][0], (24, 16))):
        made = jax.jit(network.apply)({"params": drawn(network, 16)}, pictures(size))
        assert made.shape == (2, *size, 3)
        assert 0.5 < np.abs(made).max() <= 1
    assert count(cyclegan.ResNetGenerator(width=4, blocks=0), 16) > 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cyclegan.ResNetGenerator(image_channels=0), "CycleGAN's generator: image_channels=0 must be at least"),
        (lambda: cyclegan.ResNetGenerator(width=0), "CycleGAN's generator: width=0 must be at least 1"),
        (lambda: cyclegan.ResNetGenerator(blocks=-1), "blocks=-1 and halvings=2 must be at least 0, outer_px=7 odd"),
        (
            lambda: cyclegan.ResNetGenerator(upsampling="bilinear"),
            "upsampling is 'bilinear'; choose one of 'transposed'",
        ),
        (lambda: cyclegan.ResNetGenerator(border="wrap"), "border is 'wrap'; choose one of 'reflect', 'zeros'"),
        (lambda: cyclegan.ResNetGenerator(deviation=0), "CycleGAN's generator: deviation=0 must be above 0"),
        (lambda: cyclegan.ResNetGenerator(dtype="half"), "dtype is 'half'"),
        (lambda: cyclegan.ResNetGenerator(dtype="float64"), "needs jax_enable_x64"),
        (lambda: cyclegan.UNetGenerator(halvings=1), "CycleGAN's U-Net: halvings=1 must be at least 2"),
        (lambda: cyclegan.UNetGenerator(width=0), "CycleGAN's U-Net: width=0 must be at least 1"),
        (lambda: cyclegan.UNetGenerator(image_channels=-1), "CycleGAN's U-Net: image_channels=-1"),
        (lambda: cyclegan.UNetGenerator(deviation=-1.0), "CycleGAN's U-Net: deviation=-1.0 must be above 0"),
        (lambda: cyclegan.UNetGenerator(dtype="half"), "dtype is 'half'"),
        (lambda: cyclegan.PatchGAN(width=0), "PatchGAN: width=0 must be at least 1"),
        (lambda: cyclegan.PatchGAN(strides=0), "PatchGAN: strides=0 must be at least 1"),
        (lambda: cyclegan.PatchGAN(norm="batch"), "PatchGAN norm is 'batch'; choose one of 'instance', 'none'"),
        (lambda: cyclegan.PatchGAN(deviation=0.0), "PatchGAN: deviation=0.0 must be above 0"),
        (lambda: cyclegan.PatchGAN(dtype="half"), "dtype is 'half'"),
        (lambda: cyclegan.instance_norm(jnp.zeros((2, 1, 1, 3))), "instance norm takes maps of more than one pixel"),
        (lambda: cyclegan.reflected(jnp.zeros((2, 3, 9, 3)), 3), "maps of 3x9 cannot be mirrored by 3: larger images"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(types.UsageError, match=message):
        make()


@pytest.mark.parametrize(
    ("network", "size", "message"),
    [
        (cyclegan.ResNetGenerator(width=2), (16, 18), "generator of 2 halvings takes .* multiples of 4 px, not 16x18"),
        (cyclegan.ResNetGenerator(width=2, halvings=3), 20, "of 3 halvings takes .* multiples of 8 px, not 20x20"),
        (cyclegan.ResNetGenerator(width=2), 4, "instance norm takes maps of more than one pixel"),
        (cyclegan.UNetGenerator(width=2, halvings=4), (16, 24), "of 4 halvings takes .* multiples of 16 px, not 16x24"),
        (
            cyclegan.PatchGAN(width=2),
            (64, 23),
            "strides=3 takes images of 24 px at least, not 64x23: set fewer strides",
        ),
    ],
)
def test_images_of_a_wrong_size_are_named(network, size, message):
    with pytest.raises(types.UsageError, match=message):
        jax.eval_shape(network.init, jax.random.key(0), pictures(size))


@pytest.mark.parametrize(("strides", "least_px"), [(1, 6), (2, 12), (3, 24), (4, 48)])
def test_the_smallest_images_that_have_a_patch(strides, least_px):
    network = cyclegan.PatchGAN(width=2, strides=strides)
    answer = jax.eval_shape(network.init_with_output, jax.random.key(0), pictures(least_px))[0]
    assert answer.shape == (2, 1, 1)
