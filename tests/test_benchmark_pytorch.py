"""The peers in PyTorch train the same networks as our methods, and the benchmark compares nothing else."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from ssl_jax import build, loop
from ssl_jax.types import UsageError
from tests import runs


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="needs the parity extra: make test PARITY=1")


def config_of(name, **changes):
    module = __import__(f"configs.{name}", fromlist=["get_config"])
    config = module.get_config()
    for path, value in changes.items():
        head, _, last = path.replace("__", ".").rpartition(".")
        place = config
        for key in head.split(".") if head else []:
            place = place[key]
        place[last] = value
    return build.normalised(config.to_dict()) | {
        "evaluators": {},
        "writers": {},
        "checkpoint": {"type": "checkpoint.Policy", "every": 1},
    }


NARROW = {"method__generator__widths": (8, 8, 8, 8), "method__discriminator__widths": (8, 8, 8, 8)}
CASES = {
    "simsiam_cifar10": (
        {"method__encoder__width_multiplier": 0.125, "method__projector__hidden": 32, "method__projector__output": 16},
        (32, 32, 3),
    ),
    "gan_cifar10_dcgan": (
        {"method__generator__channels": (16, 8, 8), "method__discriminator__channels": (8, 8, 16)},
        (32, 32, 3),
    ),
    "gan_cifar10_sngan": ({"method__generator__channels": 8, "method__discriminator__channels": 8}, (32, 32, 3)),
    "gan_cifar10_r3gan": (NARROW, (32, 32, 3)),
    "cyclegan_horse2zebra_64": ({"method__generator__width": 4, "method__discriminator__width": 4}, (71, 71, 3)),
}


def built(name, folder, rows=10):
    """Our method with its state, and the peer's, of a narrow form of a config."""
    from experiments import benchmark_pytorch, pytorch_steps

    changes, shape = CASES[name]
    config = config_of(name, **changes)
    draw = np.random.default_rng(0)
    names = ("image_a", "image_b") if name.startswith("cyclegan") else ("image",)
    arrays = {key: draw.integers(0, 256, (rows, *shape), np.uint8) for key in names}
    if "image" in arrays:
        arrays["label"] = (np.arange(rows) % 10).astype(np.int32)
    np.savez(folder / "data.npz", **arrays)
    kind = "data.unpaired.npz" if "image_a" in arrays else "data.resident.npz"
    size = 2 * config["method"].get("discriminator_steps", 1)
    config["data"] = {
        "type": kind,
        "file": str(folder / "data.npz"),
        "batch_size": size,
    }
    parts = build.arguments(loop.fit, config, given=("folder", "config"))
    description = benchmark_pytorch.description(config, parts)
    json.dumps(description)
    state = jax.eval_shape(
        lambda key: parts["method"].init(
            key, jax.eval_shape(parts["preprocess"], parts["data"].spec, jax.random.key(0))
        ),
        jax.random.key(0),
    )
    return parts, state, pytorch_steps.peer(description, arrays)


@pytest.mark.parametrize("name", CASES)
def test_peer_trains_as_many_parameters_on_inputs_of_the_same_shape(torch, tmp_path, name):
    parts, state, peer = built(name, tmp_path)
    ours = {network: sum(leaf.size for leaf in jax.tree.leaves(tree)) for network, tree in state.params.items()}
    assert peer.parameters == {network: ours[network] for network in peer.parameters}
    assert set(ours) - set(peer.parameters) <= {"generator_average"}
    ready = peer.prepare(next(peer.batches))
    views = ready.values() if isinstance(ready, dict) else [v for v in ready if v is not None and v.ndim == 4]
    wanted = jax.eval_shape(parts["preprocess"], parts["data"].spec, jax.random.key(0))
    shapes = sorted(view.shape for view in wanted.values() if len(view.shape) == 4)
    assert sorted(tuple(np.array(view.shape)[[0, 2, 3, 1]]) for view in views) == shapes
    assert all(view.is_contiguous(memory_format=torch.channels_last) for view in views)
    assert all(-3 < float(view.min()) < float(view.max()) < 3 for view in views)


@pytest.mark.parametrize("name", CASES)
def test_step_of_a_peer_moves_every_network(torch, tmp_path, monkeypatch, name):
    from experiments import pytorch_steps

    kept = {}
    ready = pytorch_steps._ready

    def remembered(module, device, compiled=True):
        kept[len(kept)] = (module, [p.detach().clone() for p in module.parameters()])
        return ready(module, device, compiled)

    monkeypatch.setattr(pytorch_steps, "_ready", remembered)
    _, _, peer = built(name, tmp_path)
    losses = [float(peer.step(peer.prepare(next(peer.batches)))) for _ in range(2)]
    assert np.isfinite(losses).all() and len(kept) == len(peer.parameters)
    for module, before in kept.values():
        assert any(not torch.equal(old, new) for old, new in zip(before, module.parameters(), strict=True))


def test_batches_are_epochs_without_their_rest(torch):
    from experiments import pytorch_steps

    arrays = {"image": np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1)}
    batches = pytorch_steps._batches(arrays, 4, torch.device("cpu"))
    for _ in range(2):
        epoch = torch.cat([next(batches)["image"].flatten() for _ in range(2)])
        assert len(set(epoch.tolist())) == 8


def test_networks_of_other_sizes_are_refused(torch):
    from experiments import benchmark_pytorch

    alike = {"ours": {"parameters": {"encoder": 3, "average": 3}}, "pytorch": {"parameters": {"encoder": 3}}}
    benchmark_pytorch.refuse_unlike(alike)
    with pytest.raises(UsageError, match="encoder 3 and 4"):
        benchmark_pytorch.refuse_unlike(alike | {"pytorch": {"parameters": {"encoder": 4}}})


def test_method_without_a_peer_is_refused(torch):
    from experiments import pytorch_steps

    with pytest.raises(UsageError, match="Classify, which has no peer"):
        pytorch_steps.peer({"method": {"type": "methods.classify.Classify"}}, {})


def test_command_times_both_sides_and_writes_one_line(torch, tmp_path):
    arguments = ["--config=configs/gan_cifar10_dcgan.py", "--synthetic=40x32x32x3", "--config.data.batch_size=4"]
    arguments += ["--config.method.generator.channels=(16,8,8)", "--config.method.discriminator.channels=(8,8,16)"]
    arguments += ["--rounds=2", "--steps=1", f"--out={tmp_path / 'out.jsonl'}"]
    done = subprocess.run(
        [sys.executable, "-m", "experiments.benchmark_pytorch", *arguments],
        cwd=runs.REPOSITORY,
        env=runs.environment(tmp_path / "cache"),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out.jsonl").read_text())
    assert result == json.loads(done.stdout)
    for work in ("step", "loop"):
        low, high = result[f"{work}_ratio_range"]
        assert 0 < low <= result[f"{work}_ratio"] <= high
        assert result[f"ours_{work}_images_per_second"] > 0 and result[f"pytorch_{work}_images_per_second"] > 0
    assert result["ours_peak_bytes"] > 2**26 and result["pytorch_peak_bytes"] > 2**26


def test_error_of_a_side_is_one_line(torch, tmp_path):
    arguments = ["--config=configs/simsiam_digits.py", f"--config.data.data_dir={tmp_path}"]
    done = subprocess.run(
        [sys.executable, "-m", "experiments.benchmark_pytorch", *arguments],
        cwd=runs.REPOSITORY,
        env=runs.environment(tmp_path / "cache"),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2
    assert "the peer of SimSiam has a ResNet" in done.stderr and "Traceback" not in done.stderr
