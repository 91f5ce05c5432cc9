"""Networks out of runs and files: exact, readable without this project, refused by name where they do not fit."""

import json
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy

from ssl_jax import fingerprint, pretrained
from ssl_jax.checkpoint import Policy
from ssl_jax.types import RunError, TrainState, UsageError

SECTION = {"type": "models.convnet.ConvNet", "channels": [4], "strides": [1], "dtype": "float32"}
CONFIG = {
    "method": {"type": "methods.simsiam.SimSiam", "encoder": SECTION},
    "preprocess": {"type": "augment.TwoViews", "first": {"type": "augment.View", "mean": [0.1], "deviation": [0.2]}},
}


def state(step=3, networks=("encoder", "projector"), seed=0):
    draw = np.random.default_rng(seed)

    def params(shape):
        return {"conv1": {"kernel": draw.normal(size=shape).astype(np.float32)}}

    made = {name: params((3, 3, 1, 4)) for name in networks}
    stats = {name: {"norm1": {"mean": draw.normal(size=4).astype(np.float32)}} for name in networks}
    return TrainState(step=np.int32(step), params=made, stats=stats, opt={}, memory={})


def run_folder(folder, config=CONFIG, best=None, **more):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    keeper = Policy(every=1, best="score" if best else "").open(folder)
    for step in (3, 5):
        scores = {"score": 1.0 if step == best else 0.5} if best else None
        keeper.save(step, state(step, seed=step, **more), config=config, scalars=scores)
    keeper.close()
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return run_folder(tmp_path_factory.mktemp("runs") / "a", best=3)


def test_a_run_gives_its_encoder_with_all_that_belongs_to_it(run):
    network = pretrained.read(str(run))
    assert (network.step, network.which, network.mean, network.deviation) == (5, "last", (0.1,), (0.2,))
    assert network.section == SECTION
    np.testing.assert_array_equal(
        network.params["conv1"]["kernel"], state(5, seed=5).params["encoder"]["conv1"]["kernel"]
    )
    assert network.describe() == f"encoder of {run}, its last checkpoint, step 5"
    best = pretrained.read(str(run), which="best")
    assert (best.step, best.which) == (3, "best") and best.sha256 != network.sha256
    assert pretrained.read(str(run), which=3).sha256 == best.sha256


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_file_gives_back_every_bit_and_needs_nothing_of_ours_to_be_read(run, tmp_path, suffix):
    network, path = pretrained.read(str(run)), tmp_path / f"encoder{suffix}"
    pretrained.write(network, path)
    again = pretrained.read(str(path))
    assert again.sha256 == network.sha256 and again.which == "file" and again.step == 5
    assert (again.section, again.mean, again.deviation) == (network.section, network.mean, network.deviation)
    arrays = dict(np.load(path)) if suffix == ".npz" else safetensors.numpy.load_file(path)
    np.testing.assert_array_equal(arrays["params/conv1/kernel"], network.params["conv1"]["kernel"])
    np.testing.assert_array_equal(arrays["stats/norm1/mean"], network.stats["norm1"]["mean"])
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_damaged_file_is_told_from_a_whole_one(run, tmp_path, suffix):
    network, path = pretrained.read(str(run)), tmp_path / f"encoder{suffix}"
    pretrained.write(network, path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UsageError, match="no whole network written by"):
        pretrained.read(str(path))
    path.write_bytes(b"")
    with pytest.raises(UsageError, match="no whole network written by"):
        pretrained.read(str(path))


def test_changed_numbers_are_noticed(run, tmp_path):
    pretrained.write(pretrained.read(str(run)), tmp_path / "encoder.npz")
    arrays = dict(np.load(tmp_path / "encoder.npz"))
    arrays["params/conv1/kernel"] = arrays["params/conv1/kernel"] + 1
    np.savez(tmp_path / "encoder.npz", **arrays)
    with pytest.raises(RunError, match="not those that were written"):
        pretrained.read(str(tmp_path / "encoder.npz"))


def test_what_is_no_run_is_one_line(run, tmp_path):
    with pytest.raises(UsageError, match="there is no run folder or file"):
        pretrained.read(str(tmp_path / "nothing"))
    with pytest.raises(UsageError, match="is no run folder"):
        pretrained.read(str(tmp_path))
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UsageError, match=r"neither \.npz nor \.safetensors"):
        pretrained.read(str(tmp_path / "notes.txt"))
    with pytest.raises(UsageError, match="there is no file"):
        pretrained.read(str(tmp_path / "encoder.npz"))
    copy = shutil.copytree(run, tmp_path / "copy")
    shutil.rmtree(copy / "checkpoints")
    with pytest.raises(UsageError, match="holds no checkpoints"):
        pretrained.read(str(copy))


def test_a_run_without_an_encoder_says_what_it_has(tmp_path):
    config = {**CONFIG, "method": {"type": "methods.gan.GAN"}}
    folder = run_folder(tmp_path / "gan", config, networks=("generator", "discriminator"))
    with pytest.raises(UsageError, match="has no encoder: its networks are discriminator, generator"):
        pretrained.read(str(folder))


def test_a_file_of_another_network_and_another_suffix_are_refused(run, tmp_path):
    network = pretrained.read(str(run))
    with pytest.raises(UsageError, match=r"\.npz or \.safetensors"):
        pretrained.write(network, tmp_path / "encoder.pth")
    with pytest.raises(UsageError, match="there is no folder"):
        pretrained.write(network, tmp_path / "x" / "encoder.npz")
    pretrained.write(network, tmp_path / "encoder.npz")
    with pytest.raises(UsageError, match="holds a network 'encoder', and 'head' is needed"):
        pretrained.read(str(tmp_path / "encoder.npz"), "head")


def spec(**changes):
    leaves = {"conv1": {"kernel": jax.ShapeDtypeStruct((3, 3, 1, 4), np.float32)}, **changes}
    stats = {"norm1": {"mean": jax.ShapeDtypeStruct((4,), np.float32)}}
    step = jax.ShapeDtypeStruct((), np.int32)
    return TrainState(
        step=step, params={"encoder": leaves, "head": {}}, stats={"encoder": stats, "head": {}}, opt={}, memory={}
    )


def test_a_graft_fits_whole_or_names_every_fault(run):
    taken = pretrained.Graft(str(run), step=5)(spec())
    assert set(taken["params"]) == {"encoder"}
    expected = pretrained.read(str(run)).sha256
    assert fingerprint.sha256({kind: taken[kind]["encoder"] for kind in ("params", "stats")}) == expected
    wide = {"kernel": jax.ShapeDtypeStruct((3, 3, 3, 4), np.float32)}
    more = {"kernel": jax.ShapeDtypeStruct((1,), np.float32)}
    with pytest.raises(UsageError) as caught:
        pretrained.Graft(str(run), step=5)(spec(conv1=wide, conv2=more))
    text = str(caught.value)
    assert "missing params/encoder/conv2/kernel" in text
    assert "params/encoder/conv1/kernel is float32[3, 3, 1, 4], not float32[3, 3, 3, 4]" in text
    with pytest.raises(UsageError, match="unexpected params/encoder/conv1/kernel"):
        state_spec = spec()
        del state_spec.params["encoder"]["conv1"]
        pretrained.Graft(str(run), step=5)(state_spec)


def test_a_graft_takes_no_other_network_than_before(run):
    expected = pretrained.read(str(run), which=3).sha256
    pretrained.Graft(str(run), step=3, sha256=expected)(spec())
    with pytest.raises(UsageError, match="is another than this run began with"):
        pretrained.Graft(str(run), step=5, sha256=expected)(spec())
    with pytest.raises(UsageError, match="keeps no step 4; it has 3, 5"):
        pretrained.Graft(str(run), step=4)(spec())


def test_a_hash_tells_names_types_and_values_apart():
    base = {"a": np.zeros(3, np.float32)}
    others = [
        {"b": np.zeros(3, np.float32)},
        {"a": np.zeros(3, np.float64)},
        {"a": np.zeros((3, 1), np.float32)},
        {"a": np.array([0, 0, 1e-45], np.float32)},
    ]
    assert len({fingerprint.sha256(tree) for tree in [base, *others]}) == 5
    assert fingerprint.sha256(base) == fingerprint.sha256({"a": jax.numpy.zeros(3)})
