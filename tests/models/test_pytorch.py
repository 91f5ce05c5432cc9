import sys

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import types
from ssl_jax.models import heads, pytorch, resnet


def templates(networks):
    """Shapes of parameters and batch statistics of networks that feed one another."""
    params, stats, flowing = {}, {}, jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    for name, network in networks.items():
        variables = jax.eval_shape(lambda x, n=network: n.init(jax.random.key(0), x, train=False), flowing)
        flowing = jax.eval_shape(lambda v, x, n=network: n.apply(v, x, train=False), variables, flowing)
        params[name], stats[name] = variables["params"], variables["batch_stats"]
    return params, stats


def simsiam(torch, torchvision_models, backbone, output, hidden):
    """The module tree that the authors' script saves: a ResNet whose `fc` is the projector, and a predictor."""
    nn = torch.nn
    encoder = getattr(torchvision_models, backbone)(num_classes=output)
    width = encoder.fc.in_features
    inner = [nn.Linear(width, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()]
    inner += [nn.Linear(width, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()]
    encoder.fc = nn.Sequential(*inner, nn.Linear(width, output), nn.BatchNorm1d(output, affine=False))
    predictor = [nn.Linear(output, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, output)]
    return nn.ModuleDict({"encoder": encoder, "predictor": nn.Sequential(*predictor)})


SMALL = {
    "encoder": resnet.ResNet(depth=18),
    "projector": heads.Projector(hidden=512, output=12),
    "predictor": heads.Predictor(hidden=6, output=12),
}


@pytest.fixture(scope="module")
def small(torch, torchvision_models, randomized):
    torch.manual_seed(0)
    return randomized(simsiam(torch, torchvision_models, "resnet18", output=12, hidden=6)).eval()


def test_a_saved_simsiam_gives_the_same_projections_and_predictions(torch, small, tmp_path):
    file = tmp_path / "checkpoint_0099.pth.tar"
    saved = {f"module.{name}": value for name, value in small.state_dict().items()}
    torch.save({"epoch": 100, "arch": "resnet18", "state_dict": saved, "optimizer": {"param_groups": []}}, file)
    params, stats = pytorch.from_simsiam_checkpoint(pytorch.read_checkpoint(file), *templates(SMALL))
    images = np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype(np.float32)

    @jax.jit
    def forward(params, stats, images):
        flowing, answers = images, {}
        for name, network in SMALL.items():
            variables = {"params": params[name], "batch_stats": stats[name]}
            flowing = answers[name] = network.apply(variables, flowing, train=False)
        return answers["projector"], answers["predictor"]

    projection, prediction = forward(params, stats, images)
    with torch.no_grad():
        expected = small["encoder"](torch.tensor(images).permute(0, 3, 1, 2))
        # A bias that the running mean failed to take in would show, for it is not small here.
        assert small["encoder"].fc[6].bias.abs().max() > 1e-2
        np.testing.assert_allclose(projection, expected.numpy(), atol=1e-4)
        np.testing.assert_allclose(prediction, small["predictor"](expected).numpy(), atol=1e-4)


def test_names_and_shapes_of_the_authors_resnet50_checkpoint(torch, torchvision_models):
    with torch.device("meta"):
        module = simsiam(torch, torchvision_models, "resnet50", output=2048, hidden=512)
    # Zeros that take no memory: only names and shapes are at stake.
    state_dict = {name: np.broadcast_to(np.float32(0), value.shape) for name, value in module.state_dict().items()}
    assert len(state_dict) == 343
    networks = {"encoder": resnet.ResNet(depth=50), "projector": heads.Projector(), "predictor": heads.Predictor()}
    params_template, stats_template = templates(networks)
    params, stats = pytorch.from_simsiam_checkpoint(state_dict, params_template, stats_template)
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, params_template)
    assert jax.tree.map(np.shape, stats) == jax.tree.map(np.shape, stats_template)
    # 57 running means, variances and batch counts; the frozen bias lives on in a mean.
    assert len(jax.tree.leaves(params)) == len(state_dict) - 3 * 57 - 1
    assert len(jax.tree.leaves(stats)) == 2 * 57


@pytest.mark.parametrize("depth", [18, 34, 50])
@pytest.mark.parametrize("classifier", ["with fc", "without fc"])
def test_every_torchvision_resnet_fills_every_entry(torch, torchvision_models, depth, classifier):
    with torch.device("meta"):
        module = getattr(torchvision_models, f"resnet{depth}")()
    if classifier == "without fc":
        module.fc = torch.nn.Identity()
    # Each entry holds a number of its own, so that two that changed places would show.
    names = list(module.state_dict())
    state_dict = {
        name: np.broadcast_to(np.float32(number), module.state_dict()[name].shape)
        for number, name in enumerate(names, start=1)
    }
    params_template, stats_template = templates({"encoder": resnet.ResNet(depth=depth)})
    params, stats = pytorch.from_torchvision_resnet(state_dict, params_template["encoder"], stats_template["encoder"])
    found = {name: float(leaf.flat[0]) for name, leaf in flat(params).items()}
    found_stats = {name: float(leaf.flat[0]) for name, leaf in flat(stats).items()}
    assert len(set(found.values()) | set(found_stats.values())) == len(found) + len(found_stats)
    assert found["stem_conv/kernel"] == 1 + names.index("conv1.weight")
    assert found["stage2_block1/shortcut_norm/bias"] == 1 + names.index("layer2.0.downsample.1.bias")
    assert found["stage4_block2/conv1/kernel"] == 1 + names.index("layer4.1.conv1.weight")
    assert found_stats["stage3_block2/norm2/var"] == 1 + names.index("layer3.1.bn2.running_var")


def flat(tree):
    return {"/".join(path): leaf for path, leaf in flax.traverse_util.flatten_dict(tree).items()}


def test_a_partial_load_is_refused_and_every_entry_named(small, arrays):
    state_dict = arrays(small)
    state_dict["encoder.conv1.weight"] = np.zeros((64, 3, 3, 3), np.float32)
    state_dict["predictor.3.weight"] = state_dict["predictor.3.weight"].T
    del state_dict["encoder.layer3.1.bn2.running_var"], state_dict["encoder.fc.6.bias"]
    state_dict["encoder.layer5.0.conv1.weight"] = np.zeros((1, 1, 1, 1), np.float32)
    with pytest.raises(types.UsageError) as caught:
        pytorch.from_simsiam_checkpoint(state_dict, *templates(SMALL))
    message = str(caught.value)
    assert "\n" not in message
    assert "(5 of " in message
    for part in (
        "missing encoder.layer3.1.bn2.running_var (256,)",
        "missing encoder.fc.6.bias (12,)",
        "unexpected encoder.layer5.0.conv1.weight (1, 1, 1, 1)",
        "encoder.conv1.weight has shape (64, 3, 3, 3), not (64, 3, 7, 7)",
        "predictor.3.weight has shape (6, 12), not (12, 6)",
    ):
        assert part in message
    assert "num_batches_tracked" not in message


@pytest.mark.parametrize(
    ("network", "replacement", "message"),
    [
        ("projector", heads.Projector(512, 12, layers=2), "unexpected encoder.fc.6.weight"),
        ("projector", heads.Projector(512, 12, last_norm="affine"), "missing encoder.fc.7.weight (12,)"),
        ("projector", heads.Projector(512, 12, last_norm="none"), "unexpected encoder.fc.7.running_mean (12,)"),
        ("predictor", heads.Predictor(6, 12, output_norm="affine"), "unexpected predictor.3.bias (12,)"),
        ("encoder", resnet.ResNet(depth=34), "missing encoder.layer1.2.conv1.weight (64, 64, 3, 3)"),
    ],
)
def test_another_network_than_the_checkpoints_is_refused(small, arrays, network, replacement, message):
    with pytest.raises(types.UsageError) as caught:
        pytorch.from_simsiam_checkpoint(arrays(small), *templates({**SMALL, network: replacement}))
    assert message in str(caught.value)


def test_missing_networks_are_named():
    with pytest.raises(types.UsageError, match="holds encoder, projector, predictor; asked for encoder"):
        pytorch.from_simsiam_checkpoint({}, {"encoder": {}}, {"encoder": {}})


def test_weights_in_npz_need_no_pytorch(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    weights = {"module.conv1.weight": np.ones((2, 3), np.float32), "module.bn1.num_batches_tracked": np.int64(3)}
    np.savez(tmp_path / "weights.npz", **weights)
    found = pytorch.read_checkpoint(tmp_path / "weights.npz")
    assert set(found) == {"conv1.weight", "bn1.num_batches_tracked"}
    np.testing.assert_array_equal(found["conv1.weight"], 1.0)


def test_a_pytorch_file_without_pytorch_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "weights.pth").write_bytes(b"")
    with pytest.raises(types.UsageError, match="needs PyTorch: pip install torch"):
        pytorch.read_checkpoint(tmp_path / "weights.pth")


def test_missing_and_broken_files_are_named(torch, tmp_path):
    with pytest.raises(types.UsageError, match=r"no checkpoint file at .*absent\.pth"):
        pytorch.read_checkpoint(tmp_path / "absent.pth")
    for name, content in (("text.pth", b"hello"), ("empty.pth", b""), ("zip.pth", b"PK\x03\x04broken")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(types.UsageError, match=rf"{name} is not a PyTorch file"):
            pytorch.read_checkpoint(tmp_path / name)
    for name, content in (("text.npz", b"hello"), ("empty.npz", b""), ("zip.npz", b"PK\x03\x04broken")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(types.UsageError, match=rf"{name} is not a readable \.npz"):
            pytorch.read_checkpoint(tmp_path / name)
    for content, message in (
        ({"weight": 3}, "holds more than weights and no state_dict: weight"),
        ([1], "holds a list, not weights by name"),
        ({}, "holds no weights"),
        ({"weight": print}, "is not a PyTorch file of plain tensors"),
    ):
        torch.save(content, tmp_path / "other.pth")
        with pytest.raises(types.UsageError, match=message):
            pytorch.read_checkpoint(tmp_path / "other.pth")


def test_bfloat16_weights_are_read(torch, tmp_path):
    torch.save({"weight": torch.tensor([1.5, -2.0], dtype=torch.bfloat16)}, tmp_path / "half.pth")
    np.testing.assert_array_equal(pytorch.read_checkpoint(tmp_path / "half.pth")["weight"], [1.5, -2.0])
