import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import types
from ssl_jax.models import layers, pytorch, resnet


def shapes(network, image_px=32):
    images = jnp.zeros((2, image_px, image_px, 3))
    return jax.eval_shape(lambda key: network.init(key, images, train=False), jax.random.key(0))


def flat(tree):
    return {"/".join(path): leaf for path, leaf in flax.traverse_util.flatten_dict(tree).items()}


def first_values(network, wanted):
    """The initial variables of which `wanted(name)` holds; leaving the rest out saves most of the compile time."""

    def chosen(key):
        variables = network.init(key, jnp.zeros((1, 8, 8, 3)), train=False)
        return {name: leaf for name, leaf in flat(variables["params"]).items() if wanted(name)}

    return jax.jit(chosen)(jax.random.key(0))


SMALL = resnet.ResNet(depth=18, stem="cifar", width_multiplier=0.25)


@pytest.mark.parametrize(("depth", "stem", "image_px"), [(18, "imagenet", 48), (18, "cifar", 16), (50, "imagenet", 64)])
def test_outputs_and_running_statistics_equal_torchvisions(
    torch, torchvision_models, randomized, arrays, depth, stem, image_px
):
    torch.manual_seed(0)
    reference = getattr(torchvision_models, f"resnet{depth}")()
    reference.fc = torch.nn.Identity()
    if stem == "cifar":
        reference.conv1 = torch.nn.Conv2d(3, 64, 3, stride=1, padding=1, bias=False)
        reference.maxpool = torch.nn.Identity()
    reference = randomized(reference)
    network = resnet.ResNet(depth=depth, stem=stem)
    template = shapes(network)
    params, stats = pytorch.from_torchvision_resnet(arrays(reference), template["params"], template["batch_stats"])
    images = np.random.default_rng(0).normal(size=(6, image_px, image_px, 3)).astype(np.float32)
    torch_images = torch.tensor(images).permute(0, 3, 1, 2)

    @jax.jit
    def both(params, stats, images):
        variables = {"params": params, "batch_stats": stats}
        trained, changed = network.apply(variables, images, train=True, mutable=["batch_stats"])
        return network.apply(variables, images, train=False), trained, changed["batch_stats"]

    evaluated, trained, changed = both(params, stats, images)
    with torch.no_grad():
        np.testing.assert_allclose(evaluated, reference.eval()(torch_images).numpy(), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(trained, reference.train()(torch_images).numpy(), rtol=1e-4, atol=1e-4)
    _, expected = pytorch.from_torchvision_resnet(arrays(reference), template["params"], template["batch_stats"])
    for name, value in flat(changed).items():
        np.testing.assert_allclose(value, flat(expected)[name], rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    ("network", "parameters", "features"),
    [
        (resnet.ResNet(depth=18), 11_176_512, 512),
        (resnet.ResNet(depth=18, stem="cifar"), 11_168_832, 512),
        (resnet.ResNet(depth=34), 21_284_672, 512),
        (resnet.ResNet(depth=50), 23_508_032, 2048),
    ],
)
def test_parameter_count_and_feature_width(network, parameters, features):
    template = shapes(network)
    assert sum(leaf.size for leaf in jax.tree.leaves(template["params"])) == parameters
    answer = jax.eval_shape(lambda v: network.apply(v, jnp.zeros((2, 32, 32, 3)), train=False), template)
    assert (answer.shape, answer.dtype) == ((2, features), jnp.float32)


def test_width_multiplier_scales_every_layer():
    full = flat(shapes(resnet.ResNet(depth=50))["params"])
    quarter = flat(shapes(resnet.ResNet(depth=50, width_multiplier=0.25))["params"])
    assert full.keys() == quarter.keys()
    for name, leaf in quarter.items():
        expected = [size if size == 3 else size // 4 for size in full[name].shape[-2:]]
        assert list(leaf.shape[-2:]) == expected, name


def test_names_tell_stages_apart():
    params = shapes(SMALL)["params"]
    stages = [f"stage{stage}_block{block}" for stage in (1, 2, 3, 4) for block in (1, 2)]
    assert set(params) == {"stem_conv", "stem_norm", *stages}
    assert set(params["stage1_block1"]) == {"conv1", "norm1", "conv2", "norm2"}
    assert set(params["stage2_block1"]) - set(params["stage2_block2"]) == {"shortcut_conv", "shortcut_norm"}


def test_convolutions_start_with_torchvisions_spread():
    kernels = first_values(SMALL, lambda name: name.endswith("kernel") and name.startswith(("stem", "stage3_block1")))
    assert len(kernels) == 4
    for name, kernel in kernels.items():
        height_px, width_px, _, out = kernel.shape
        expected = (2.0 / (height_px * width_px * out)) ** 0.5
        np.testing.assert_allclose(np.std(kernel), expected, rtol=5 / (2 * kernel.size) ** 0.5, err_msg=name)
        # Flax's usual normal initialisers are cut off at two deviations, PyTorch's is not.
        if kernel.size > 1000:
            assert np.max(np.abs(kernel)) > 2.5 * expected, name


@pytest.mark.parametrize(("depth", "last_norm", "blocks"), [(18, "norm2", 8), (50, "norm3", 16)])
def test_only_the_last_scale_of_each_block_starts_at_zero(depth, last_norm, blocks):
    scales = first_values(resnet.ResNet(depth=depth), lambda name: name.endswith("scale"))
    zeros = {name for name, scale in scales.items() if np.all(scale == 0.0)}
    assert zeros == {name for name in scales if name.startswith("stage") and name.split("/")[1] == last_norm}
    assert len(zeros) == blocks
    assert all(np.all(scale == 1.0) for name, scale in scales.items() if name not in zeros)
    ones = first_values(resnet.ResNet(depth=depth, last_scale="one"), lambda name: name.endswith("scale"))
    assert all(np.all(scale == 1.0) for scale in ones.values())


@pytest.mark.parametrize(
    ("stem", "size", "form"), [("cifar", (12, 9), "dot_general"), ("imagenet", (23, 32), "window_strides=(2, 8)")]
)
def test_values_names_and_gradients_are_those_of_linens_own_convolution(monkeypatch, stem, size, form):
    """In float64; of a network of two stages with strides, shortcuts and both stems."""
    monkeypatch.setitem(resnet.STAGE_BLOCKS, 18, (1, 1))
    images = np.random.default_rng(0).normal(size=(80, *size, 3))
    programs = []

    def answer():
        network = resnet.ResNet(18, stem, width_multiplier=0.25, last_scale="one", dtype="float64")
        generator = np.random.default_rng(1)
        template = jax.eval_shape(lambda key: network.init(key, images[:2], train=False), jax.random.key(0))
        variables = jax.tree.map(lambda leaf: generator.normal(0.1, 0.1, leaf.shape), template)

        def loss(params, images):
            features, changed = network.apply(
                {**variables, "params": params}, images, train=True, mutable=["batch_stats"]
            )
            return jnp.sum(jnp.sin(features)), (features, changed)

        passes = jax.grad(loss, (0, 1), has_aux=True)
        programs.append(str(jax.make_jaxpr(passes)(variables["params"], images)))
        return variables, jax.jit(passes)(variables["params"], images)

    with jax.enable_x64(True):
        own = answer()
        monkeypatch.setattr(layers, "_conv", jax.lax.conv_general_dilated)
        expected = answer()
    assert [form in program for program in programs] == [True, False]
    assert jax.tree.structure(own) == jax.tree.structure(expected)
    for found, wanted in zip(jax.tree.leaves(own), jax.tree.leaves(expected), strict=True):
        assert found.dtype == wanted.dtype
        np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-10 * np.abs(wanted).max())


def test_bfloat16_computes_narrow_and_keeps_and_answers_float32():
    narrow = resnet.ResNet(depth=18, stem="cifar", width_multiplier=0.25, dtype="bfloat16")
    template = shapes(narrow)
    assert {leaf.dtype for leaf in jax.tree.leaves(template)} == {jnp.dtype("float32")}
    generator = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: generator.normal(0.1, 0.1, leaf.shape).astype(np.float32), template)
    images = generator.normal(size=(4, 8, 8, 3)).astype(np.float32)

    def forward(network, variables):
        return network.apply(variables, images, train=True, mutable=["batch_stats"])

    program = str(jax.make_jaxpr(lambda v: forward(narrow, v))(variables))
    convolutions = [line for line in program.splitlines() if "= conv_general_dilated" in line]
    assert len(convolutions) == 20
    assert all(":bf16[" in line.partition("=")[0] for line in convolutions)
    features, changed = jax.jit(lambda v: forward(narrow, v))(variables)
    assert {leaf.dtype for leaf in jax.tree.leaves((features, changed))} == {jnp.dtype("float32")}
    expected, _ = jax.jit(lambda v: forward(SMALL, v))(variables)
    difference = np.abs(features - expected).max() / np.abs(expected).max()
    assert 0 < difference < 0.05


def test_batch_norm_refuses_a_training_batch_without_spread():
    norm = layers.batch_norm(dtype="float32", name=None)
    variables = norm.init(jax.random.key(0), jnp.zeros((1, 3)), train=True)
    with pytest.raises(types.UsageError, match=r"more than one value a channel.*\(1, 3\)"):
        norm.apply(variables, jnp.ones((1, 3)), train=True, mutable=["batch_stats"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 101}, "ResNet depth is 101; choose one of 18, 34, 50"),
        ({"stem": "CIFAR"}, "ResNet stem is 'CIFAR'; choose one of 'imagenet', 'cifar'"),
        ({"last_scale": "none"}, "ResNet last_scale is 'none'; choose one of 'zero', 'one'"),
        ({"dtype": "float16"}, "dtype is 'float16'; choose one of 'float32', 'bfloat16', 'float64'"),
        ({"dtype": "float64"}, 'dtype "float64" needs jax_enable_x64'),
        ({"width_multiplier": 0.3}, "makes 19.2 channels of 64, which must be whole.*the nearest is 0.296875"),
        ({"width_multiplier": 0.001}, "the nearest is 0.015625"),
        ({"width_multiplier": 0.0}, "the nearest is 0.015625"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(types.UsageError, match=message):
        resnet.ResNet(**arguments)
