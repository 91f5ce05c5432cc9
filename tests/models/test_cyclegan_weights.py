"""The reference implementation's state dicts: every entry used, every parameter filled, and back to the bit."""

import functools
import itertools

import cyclegan_reference as reference
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import types
from ssl_jax.models import cyclegan, cyclegan_weights


def randomly(module, torch, seed=0):
    """The module with weights that make every layer matter, biases among them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.0, 0.2, generator=generator)
    return module.eval()


def answers(torch, module, images):
    with torch.no_grad():
        return module(torch.tensor(images).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()


def images(channels=3, size_px=32):
    return np.random.default_rng(0).uniform(-1, 1, size=(2, size_px, size_px, channels)).astype(np.float32)


def numbered(width=2, blocks=1, channels=3, made=3):
    """A generator's state dict by hand, without PyTorch; every entry holds a number of its own."""
    features = [("1", (width, channels, 7, 7)), ("4", (2 * width, width, 3, 3)), ("7", (4 * width, 2 * width, 3, 3))]
    for block in range(10, 10 + blocks):
        features += [(f"{block}.conv_block.{place}", (4 * width, 4 * width, 3, 3)) for place in (1, 5)]
    features += [(f"{10 + blocks}", (4 * width, 2 * width, 3, 3)), (f"{13 + blocks}", (2 * width, width, 3, 3))]
    features += [(f"{17 + blocks}", (made, width, 7, 7))]
    state_dict = {}
    for number, (name, shape) in enumerate(features):
        state_dict[f"model.{name}.weight"] = np.full(shape, 2 * number, np.float32)
        transposed = name in (f"{10 + blocks}", f"{13 + blocks}")
        state_dict[f"model.{name}.bias"] = np.full(shape[1 if transposed else 0], 2 * number + 1, np.float32)
    return state_dict


def patches(width=2, strides=3, channels=3):
    sizes = [channels, *(width * min(2**n, 8) for n in range(strides + 1)), 1]
    state_dict = {}
    for number, (before, features) in enumerate(itertools.pairwise(sizes)):
        name = f"model.{0 if number == 0 else 3 * number - 1}"
        state_dict[f"{name}.weight"] = np.full((features, before, 4, 4), 2 * number, np.float32)
        state_dict[f"{name}.bias"] = np.full(features, 2 * number + 1, np.float32)
    return state_dict


@pytest.mark.parametrize(
    ("settings", "dropout"),
    [
        ({"channels": 3, "made": 3, "width": 4, "blocks": 9}, False),
        ({"channels": 3, "made": 1, "width": 6, "blocks": 6}, True),
        ({"channels": 1, "made": 3, "width": 4, "blocks": 2}, False),
    ],
)
def test_a_generator_of_the_reference_translates_alike_and_goes_back_to_the_bit(torch, arrays, settings, dropout):
    module = randomly(reference.generator(torch, **settings, dropout=dropout), torch)
    saved = arrays(module)
    network, params = cyclegan_weights.from_reference(saved, where="latest_net_G_A.pth")
    assert (network.blocks, network.width) == (settings["blocks"], settings["width"])
    assert network.image_channels == settings["made"]
    given = images(settings["channels"])
    assert jax.eval_shape(network.init, jax.random.key(0), given)["params"] == jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params
    )
    found = jax.jit(network.apply)({"params": params}, given)
    np.testing.assert_allclose(found, answers(torch, module, given), atol=2e-5)
    back = cyclegan_weights.to_reference(params)
    plain = module if not dropout else reference.generator(torch, **settings).eval()
    plain.load_state_dict({name: torch.tensor(value) for name, value in back.items()}, strict=True)
    if not dropout:
        assert list(back) == list(saved)
        assert all(np.array_equal(back[name], saved[name]) and back[name].dtype == np.float32 for name in saved)
    np.testing.assert_array_equal(answers(torch, plain, given), answers(torch, module, given))


@pytest.mark.parametrize("strides", [1, 2, 3, 4])
def test_a_discriminator_of_the_reference_judges_alike_and_goes_back_to_the_bit(torch, arrays, strides):
    module = randomly(reference.discriminator(torch, 3, 4, strides), torch)
    saved = arrays(module)
    network, params = cyclegan_weights.discriminator_from_reference(saved, where="latest_net_D_A.pth")
    assert (network.width, network.strides, network.norm) == (4, strides, "instance")
    given = images(size_px=64)
    found = jax.jit(network.apply)({"params": params}, given)
    np.testing.assert_allclose(found, answers(torch, module, given)[..., 0], rtol=1e-4, atol=1e-4)
    back = cyclegan_weights.to_reference(params)
    assert list(back) == list(saved)
    assert all(np.array_equal(back[name], saved[name]) for name in saved)
    module.load_state_dict({name: torch.tensor(value) for name, value in back.items()}, strict=True)


def test_the_published_names_and_shapes():
    """Of the reference's nine blocks at width 64, and its basic discriminator."""
    like = numbered(64, 9)
    assert len(like) == 48
    assert (like["model.26.weight"].shape, like["model.19.weight"].shape) == ((3, 64, 7, 7), (256, 128, 3, 3))
    network, params = cyclegan_weights.from_reference(like, where="file")
    assert network == cyclegan.ResNetGenerator()
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 11_378_179
    assert set(patches(64)) == {f"model.{i}.{leaf}" for i in (0, 2, 5, 8, 11) for leaf in ("weight", "bias")}
    network, params = cyclegan_weights.discriminator_from_reference(patches(64), where="file")
    assert network == cyclegan.PatchGAN()
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 2_764_737


def test_each_entry_comes_to_its_own_place():
    _, params = cyclegan_weights.from_reference(numbered(blocks=2), where="file")
    order = ["stem", "down1", "down2", ("block1", "conv1"), ("block1", "conv2"), ("block2", "conv1")]
    order += [("block2", "conv2"), "up1", "up2", "head"]
    for number, place in enumerate(order):
        leaves = params[place] if isinstance(place, str) else params[place[0]][place[1]]
        assert set(np.unique(leaves["kernel"])) == {2 * number} and set(np.unique(leaves["bias"])) == {2 * number + 1}
    _, params = cyclegan_weights.discriminator_from_reference(patches(), where="file")
    for number in range(5):
        leaves = params[f"conv{number + 1}"]
        assert set(np.unique(leaves["kernel"])) == {2 * number} and set(np.unique(leaves["bias"])) == {2 * number + 1}


def test_half_precision_becomes_float32_and_nothing_shares_the_files_memory():
    saved = {name: value.astype(np.float16) for name, value in numbered().items()}
    _, params = cyclegan_weights.from_reference(saved, where="file")
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype("float32")}
    saved = numbered()
    _, params = cyclegan_weights.from_reference(saved, where="file")
    saved["model.1.bias"][:] = 99
    assert 99 not in params["stem"]["bias"]


def test_parameters_on_a_device_are_written_as_well():
    params = jax.tree.map(jnp.asarray, cyclegan_weights.from_reference(numbered(), where="file")[1])
    back = cyclegan_weights.to_reference(params)
    assert all(isinstance(value, np.ndarray) and value.flags.c_contiguous for value in back.values())
    _, again = cyclegan_weights.from_reference(back, where="file")
    assert jax.tree.all(jax.tree.map(np.array_equal, params, again))


@pytest.mark.parametrize("dropout", [False, True])
def test_running_statistics_of_old_files_are_left_out_as_the_reference_does(torch, arrays, dropout):
    tracked = functools.partial(torch.nn.InstanceNorm2d, track_running_stats=True)
    module = reference.generator(torch, width=2, blocks=2, dropout=dropout, norm=tracked)
    saved = arrays(randomly(module, torch))
    assert sum(name.endswith(("running_mean", "running_var", "num_batches_tracked")) for name in saved) == 3 * 9
    network, params = cyclegan_weights.from_reference(saved, where="file")
    plain = reference.generator(torch, width=2, blocks=2, dropout=dropout).eval()
    plain.load_state_dict({name: torch.tensor(saved[name]) for name in plain.state_dict()}, strict=True)
    found = jax.jit(network.apply)({"params": params}, images())
    np.testing.assert_allclose(found, answers(torch, plain, images()), atol=2e-5)
    module = reference.discriminator(torch, width=2, norm=tracked)
    cyclegan_weights.discriminator_from_reference(arrays(module), where="file")
    with pytest.raises(types.UsageError, match=r"unexpected model\.26\.running_mean"):
        cyclegan_weights.from_reference({**saved, "model.26.running_mean": np.zeros(3)}, where="file")


def without(state_dict, *names):
    return {name: value for name, value in state_dict.items() if name not in names}


@pytest.mark.parametrize(
    ("state_dict", "message"),
    [
        (
            without(numbered(), "model.4.weight"),
            r"1 block\(s\) \(1 of 16 entries\), nothing .*missing model\.4\.weight \(4, 2, 3, 3\)$",
        ),
        (without(numbered(), "model.18.weight"), r"missing model\.18\.weight \(3, 2, 7, 7\)"),
        (without(numbered(), "model.10.conv_block.5.bias"), r"missing model\.10\.conv_block\.5\.bias \(8,\)"),
        ({**numbered(), "model.30.bias": np.zeros(3)}, r"unexpected model\.30\.bias \(3,\)"),
        ({**numbered(), "model.7.weight": np.zeros((8, 5, 3, 3))}, r"model\.7\.weight has shape \(8, 5, 3, 3\), not"),
        (
            {**numbered(), "model.11.weight": np.zeros((4, 8, 3, 3))},
            r"model\.11\.weight has shape .*not \(8, 4, 3, 3\)",
        ),
        ({**numbered(), **{f"model.{i}.x": np.zeros(1) for i in range(40, 49)}}, r"\(9 of 16 entries\).*; and 5 more$"),
        ({**numbered(), "model.10.conv_block.9.weight": np.zeros((8, 8, 3, 3))}, "unexpected model.10.conv_block.9"),
        ({}, "holds no weights, and a ResNet generator of the reference implementation is needed"),
        ({"fc.weight": np.zeros((2, 2))}, r"holds another network \(fc\.weight\)"),
        (patches(), "holds a PatchGAN, and a ResNet generator of"),
        ({"model.model.0.weight": np.zeros((2, 3, 4, 4))}, "holds a U-Net, and a ResNet generator of"),
        ({"state_dict": numbered(), "epoch": 3}, r"holds more than weights \(state_dict; epoch\): give the state dict"),
        ({**numbered(), "model.2.weight": np.ones(2)}, r"its norms have weights of their own \(model\.2\.weight\)"),
    ],
)
def test_another_file_is_refused_in_words(state_dict, message):
    with pytest.raises(types.UsageError, match=message) as caught:
        cyclegan_weights.from_reference(state_dict, where="some/latest_net_G_A.pth")
    assert str(caught.value).startswith("some/latest_net_G_A.pth") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("state_dict", "message"),
    [
        (
            without(patches(), "model.5.bias"),
            r"PatchGAN with 3 stride\(s\) \(1 of 10 .*: missing model\.5\.bias \(8,\)",
        ),
        (without(patches(), *(f"model.{i}.bias" for i in (2, 5, 8))), r"\(3 of 10 .*missing model\.2\.bias"),
        ({**patches(), "model.8.weight_u": np.zeros(16)}, r"unexpected model\.8\.weight_u"),
        ({**patches(), "model.11.weight": np.zeros((2, 16, 4, 4))}, r"model\.11\.weight has shape"),
        (numbered(), "holds a ResNet generator, and a PatchGAN of"),
        ({"net.0.weight": np.zeros((2, 3, 1, 1))}, "holds a discriminator of single pixels, and a PatchGAN of"),
        ({**patches(), "model.3.weight": np.ones(4)}, r"norms have weights of their own \(model\.3\.weight\)"),
        ({"model.0.weight": np.zeros((2, 3, 4, 4))}, r"PatchGAN with 1 stride.*missing model\.0\.bias"),
    ],
)
def test_another_discriminator_is_refused_in_words(state_dict, message):
    with pytest.raises(types.UsageError, match=message):
        cyclegan_weights.discriminator_from_reference(state_dict, where="D.pth")


def test_real_files_of_other_networks_are_told_apart(torch, arrays):
    batch = reference.generator(torch, width=2, blocks=1, norm=torch.nn.BatchNorm2d)
    with pytest.raises(types.UsageError, match="norms have weights of their own"):
        cyclegan_weights.from_reference(arrays(batch), where="file")
    unet = reference.unet(torch, width=1, halvings=5)
    with pytest.raises(types.UsageError, match="a U-Net"):
        cyclegan_weights.from_reference(arrays(unet), where="file")
    resize = reference.generator(torch, width=2, blocks=1, resize=True)
    with pytest.raises(types.UsageError, match=r"missing model\.11\.weight"):
        cyclegan_weights.from_reference(arrays(resize), where="file")


def shapes_of(network, size_px=32):
    spec = jax.eval_shape(network.init, jax.random.key(0), jax.ShapeDtypeStruct((1, size_px, size_px, 3), jnp.float32))
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), spec["params"])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            shapes_of(cyclegan.ResNetGenerator(width=2, blocks=1, upsampling="resize")),
            r"no such network \(up1 has a kernel \(3, 3, 8, 4\) and a bias \(4,\); up2",
        ),
        (shapes_of(cyclegan.UNetGenerator(width=1, halvings=2)), r"no such network \(down1/bias"),
        (shapes_of(cyclegan.ResNetGenerator(width=2, blocks=1, halvings=1)), r"down2/bias; down2/kernel; up2/bias"),
        (shapes_of(cyclegan.ResNetGenerator(width=2, blocks=1, halvings=3)), r"down3/bias; down3/kernel; up3/bias"),
        (shapes_of(cyclegan.ResNetGenerator(width=2, blocks=1, outer_px=5)), r"stem has a kernel \(5, 5, 3, 2\)"),
        ({"dense1": {"kernel": np.zeros((2, 2))}}, r"no such network \(dense1/kernel\): give the parameters of a"),
        (without(shapes_of(cyclegan.ResNetGenerator(width=2, blocks=1)), "down1"), r"\(down1/bias; down1/kernel\)"),
        ({**shapes_of(cyclegan.PatchGAN(width=2)), "more": {"bias": np.zeros(3)}}, "more/bias"),
        ({}, "no such network"),
    ],
)
def test_networks_that_the_reference_lacks_are_not_written(params, message):
    with pytest.raises(types.UsageError, match=message):
        cyclegan_weights.to_reference(params)


def test_their_discriminators_have_the_names_of_the_generators_that_they_judge():
    """cycle_gan_model.py: `backward_D_A` compares real B with what G_A made of A."""
    assert cyclegan_weights.FILES == {
        "generator_ab": "G_A",
        "generator_ba": "G_B",
        "discriminator_a": "D_B",
        "discriminator_b": "D_A",
    }
