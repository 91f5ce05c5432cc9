"""CycleGAN's networks from the reference implementation's files into a run, and out of a run into such files."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import build, pretrained, reference_weights
from ssl_jax.checkpoint import Policy
from ssl_jax.models import cyclegan, cyclegan_weights, pytorch
from ssl_jax.types import TrainState, UsageError
from tests import gan_runs

GENERATOR = {"type": "models.cyclegan.ResNetGenerator", "width": 2, "blocks": 1}
DISCRIMINATOR = {"type": "models.cyclegan.PatchGAN", "width": 2, "strides": 2}
CONFIG = {
    "method": {"type": "methods.cyclegan.CycleGAN", "generator": GENERATOR, "discriminator": DISCRIMINATOR},
    "preprocess": {"type": "augment.Unpaired"},
}
NAMES = ("generator_ab", "generator_ba", "discriminator_a", "discriminator_b")
AVERAGES = ("generator_ab_average", "generator_ba_average")


def params_of(name, seed=0, generator=GENERATOR, discriminator=DISCRIMINATOR):
    """Numbers that no two networks share."""
    network = build.section(generator if name.startswith("generator") else discriminator, "config")
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    spec = jax.eval_shape(network.init, jax.random.key(0), images)["params"]
    draw = np.random.default_rng([seed, *name.encode()])
    return jax.tree.map(lambda leaf: draw.normal(size=leaf.shape).astype(np.float32), spec)


def run_folder(folder, *, names=NAMES, best=None, **sections):
    folder.mkdir(parents=True)
    config = {**CONFIG, "method": {**CONFIG["method"], **sections}}
    (folder / "config.json").write_text(json.dumps(config))
    keeper = Policy(every=1, best="score" if best else "").open(folder)
    for step in (3, 5):
        params = {name: params_of(name, step, **sections) for name in names}
        stats = {name: {} for name in names}
        state = TrainState(step=np.int32(step), params=params, stats=stats, opt={}, memory={})
        keeper.save(step, state, config=config, scalars={"score": float(step == best)} if best else None)
    keeper.close()
    return folder


def same(one, other):
    return jax.tree.structure(one) == jax.tree.structure(other) and jax.tree.all(
        jax.tree.map(np.array_equal, one, other)
    )


def spec_of(names, **sections):
    params = {name: params_of(name, **sections) for name in names}
    spec = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
    return TrainState(step=None, params=spec, stats={name: {} for name in names}, opt={}, memory={})


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The four files as the reference names them, as `.npz`; each network's numbers are those of `params_of`."""
    folder = tmp_path_factory.mktemp("files")
    theirs = {"generator_ab": "G_A", "generator_ba": "G_B", "discriminator_a": "D_B", "discriminator_b": "D_A"}
    for ours, letters in theirs.items():
        np.savez(folder / f"latest_net_{letters}.npz", **cyclegan_weights.to_reference(params_of(ours)))
    return {ours: str(folder / f"latest_net_{letters}.npz") for ours, letters in theirs.items()}


def test_a_graft_takes_each_file_to_its_network_and_to_its_average(files):
    graft = build.section({"type": "reference_weights.Graft", **files}, "config.graft")
    taken = graft(spec_of((*NAMES, *AVERAGES)))
    assert set(taken) == {"params"} and set(taken["params"]) == {*NAMES, *AVERAGES}
    for name, params in taken["params"].items():
        assert same(params, params_of(name.removesuffix("_average")))


def test_a_graft_leaves_networks_without_a_file_fresh(files):
    graft = reference_weights.Graft(generator_ba=files["generator_ba"])
    assert set(graft(spec_of(NAMES))["params"]) == {"generator_ba"}
    assert set(graft(spec_of((*NAMES, *AVERAGES)))["params"]) == {"generator_ba", "generator_ba_average"}
    with pytest.raises(UsageError, match="graft names no file: give one or more of generator_ab, generator_ba"):
        reference_weights.Graft()


def test_a_file_that_does_not_fit_is_refused(files, tmp_path):
    Graft = reference_weights.Graft
    with pytest.raises(
        UsageError, match=r"graft\.generator_ab=.*: this method's networks are discriminator, generator"
    ):
        Graft(generator_ab=files["generator_ab"])(spec_of(("generator", "discriminator")))
    with pytest.raises(UsageError, match="no checkpoint file at"):
        Graft(generator_ab=str(tmp_path / "absent.pth"))(spec_of(NAMES))
    with pytest.raises(UsageError, match="holds a PatchGAN, and a ResNet generator"):
        Graft(generator_ab=files["discriminator_a"])(spec_of(NAMES))
    with pytest.raises(UsageError, match="holds a ResNet generator, and a PatchGAN"):
        Graft(discriminator_b=files["generator_ab"])(spec_of(NAMES))
    for change, message in (
        ({"blocks": 2}, "missing generator_ab/block2/conv1/bias"),
        ({"width": 3}, r"generator_ab/stem/bias is float32\[2\], not float32\[3\]"),
        ({"upsampling": "resize"}, r"generator_ab/up1/kernel is float32\[3, 3, 4, 8\], not float32\[3, 3, 8, 4\]"),
    ):
        spec = spec_of(NAMES, generator={**GENERATOR, **change})
        with pytest.raises(UsageError, match=message) as caught:
            Graft(generator_ab=files["generator_ab"])(spec)
        assert f"of {files['generator_ab']} does not fit this config" in str(caught.value)


def test_a_runs_networks_get_the_references_names(tmp_path):
    networks = reference_weights.of_run(run_folder(tmp_path / "run", best=3))
    assert (networks.step, networks.left_out) == (5, "")
    assert networks.taken == {
        "G_A": "generator_ab",
        "G_B": "generator_ba",
        "D_B": "discriminator_a",
        "D_A": "discriminator_b",
    }
    for letters, state_dict in networks.state_dicts.items():
        read = cyclegan_weights.from_reference
        read = cyclegan_weights.discriminator_from_reference if letters.startswith("D") else read
        assert same(read(state_dict, where="file")[1], params_of(networks.taken[letters], 5))
    best = reference_weights.of_run(tmp_path / "run", which="best")
    assert best.step == 3
    assert same(cyclegan_weights.from_reference(best.state_dicts["G_A"], where="file")[1], params_of("generator_ab", 3))


def test_averaged_generators_go_before_the_others(tmp_path):
    networks = reference_weights.of_run(run_folder(tmp_path / "run", names=(*NAMES, *AVERAGES)))
    assert (networks.taken["G_A"], networks.taken["G_B"]) == AVERAGES
    found = cyclegan_weights.from_reference(networks.state_dicts["G_B"], where="file")[1]
    assert same(found, params_of("generator_ba_average", 5))


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"generator": {**GENERATOR, "upsampling": "resize"}},
            "a generator with upsampling='resize', and the reference",
        ),
        ({"generator": {**GENERATOR, "border": "zeros"}}, "a generator with border='zeros', and the reference"),
        ({"generator": {**GENERATOR, "halvings": 1, "outer_px": 3}}, "a generator with halvings=1, outer_px=3, and"),
        (
            {"generator": {"type": "models.cyclegan.UNetGenerator", "width": 2, "halvings": 2}},
            "has a UNetGenerator, and only a ResNetGenerator can be written",
        ),
        ({"type": "methods.gan.GAN"}, r"is no CycleGAN's run \(methods\.gan\.GAN\)"),
    ],
)
def test_runs_whose_generators_the_reference_lacks_are_refused(tmp_path, sections, message):
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "method": {**CONFIG["method"], **sections}}))
    with pytest.raises(UsageError, match=message):
        reference_weights.of_run(tmp_path)


@pytest.mark.parametrize(
    ("judge", "reason"),
    [
        ({**DISCRIMINATOR, "norm": "none"}, "without norm, the reference's discriminators have fewer biases"),
        ({"type": "models.dcgan.Discriminator", "channels": [2]}, "the reference has no Discriminator"),
    ],
)
def test_discriminators_that_the_reference_lacks_are_left_out_with_a_reason(tmp_path, judge, reason):
    assert reference_weights._unlike_the_references(build.section(judge, "config")) == reason
    if judge["type"] == DISCRIMINATOR["type"]:
        networks = reference_weights.of_run(run_folder(tmp_path / "run", discriminator=judge))
        assert set(networks.state_dicts) == {"G_A", "G_B"} and networks.left_out == reason
        assert "--netD" not in networks.options


def test_the_options_that_build_the_networks_there():
    like = {"stem": {"kernel": np.zeros((7, 7, 3, 64))}, **{f"block{i}": {} for i in range(1, 10)}}
    params = {"generator_ab": like, "generator_ba": like}
    words = reference_weights._options(params, cyclegan.PatchGAN())
    assert words == (
        "--netG resnet_9blocks --ngf 64 --norm instance --no_dropout --netD n_layers --n_layers_D 3 --ndf 64"
    )
    grey = {"stem": {"kernel": np.zeros((7, 7, 1, 32))}, "block1": {}}
    words = reference_weights._options({"generator_ab": like | grey, "generator_ba": like}, None)
    assert "resnet_9blocks --ngf 32" in words and words.endswith("--input_nc 1 --output_nc 3")
    words = reference_weights._options({"generator_ab": grey, "generator_ba": grey}, None)
    assert words.startswith("ResnetGenerator with n_blocks=1 (its --netG knows 6 and 9)")


def test_files_are_read_again_to_the_bit(tmp_path):
    state_dict = cyclegan_weights.to_reference(params_of("generator_ab"))
    (tmp_path / "a.npz").write_bytes(reference_weights.as_file(state_dict, ".npz"))
    assert same(pytorch.read_checkpoint(tmp_path / "a.npz"), state_dict)
    with pytest.raises(UsageError, match=r"written as \.pth or \.npz, not '\.safetensors'"):
        reference_weights.as_file(state_dict, ".safetensors")


def test_a_pth_is_a_plain_dict_of_float32_tensors(tmp_path):
    torch = pytest.importorskip("torch", reason="needs the parity extra: make test PARITY=1")
    state_dict = cyclegan_weights.to_reference(params_of("discriminator_a"))
    (tmp_path / "a.pth").write_bytes(reference_weights.as_file(state_dict, ".pth"))
    loaded = torch.load(tmp_path / "a.pth", weights_only=True)
    assert type(loaded) is dict and list(loaded) == list(state_dict)
    assert {value.dtype for value in loaded.values()} == {torch.float32}
    assert all(value.is_contiguous() for value in loaded.values())
    assert same(pytorch.read_checkpoint(tmp_path / "a.pth"), state_dict)


def test_a_pth_without_pytorch_says_how_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UsageError, match=r"needs PyTorch: pip install torch, or write \.npz"):
        reference_weights.as_file({}, ".pth")


def test_the_script_writes_what_a_graft_takes(tmp_path):
    run = run_folder(tmp_path / "run", names=(*NAMES, "generator_ab_average"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    words = [f"--run={run}", "--format=npz"]
    first, again, foreign, nothing = gan_runs.calls(
        "reference_weights",
        [*words, f"--out={tmp_path / 'out'}"],
        [*words, f"--out={tmp_path / 'out'}"],
        [*words, f"--out={tmp_path / 'full'}"],
        [],
    )
    assert first["error"] == "" and again == first
    assert "latest_net_G_A.npz: generator_ab_average\n" in first["printed"]
    assert "latest_net_D_A.npz: discriminator_b\n" in first["printed"]
    names = [f"latest_net_{letters}.npz" for letters in ("D_A", "D_B", "G_A", "G_B")]
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [*names, "reference_weights.json"]
    record = json.loads((tmp_path / "out" / "reference_weights.json").read_text())
    assert record["finished"] and record["step"] == 5
    assert record["networks"]["latest_net_G_A.npz"] == "generator_ab_average"
    assert "holds no reference_weights.json of experiments.reference_weights" in foreign["error"]
    assert "needs --run and --out" in nothing["error"]
    graft = reference_weights.Graft(
        generator_ab=str(tmp_path / "out" / "latest_net_G_A.npz"), discriminator_a=str(tmp_path / "out" / names[1])
    )
    taken = graft(spec_of(NAMES))["params"]
    assert same(taken["generator_ab"], params_of("generator_ab_average", 5))
    assert same(taken["discriminator_a"], params_of("discriminator_a", 5))
    assert pretrained.run_config(run)["method"]["type"] == reference_weights.METHOD
