"""`experiments.benchmark_cyclegan`: its list of layers against the layers that a step calls, and its line of numbers.

One process runs all the cases, as flags are a process's own.
"""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
SCRIPT = """
import collections, contextlib, io, json, sys, types
import jax, jax.numpy as jnp
from absl import flags
from experiments import benchmark_cyclegan, config_flag
from ssl_jax import optim
from ssl_jax.methods.cyclegan import CycleGAN
from ssl_jax.models import convolution, cyclegan
from ssl_jax.types import UsageError

config, out = sys.argv[1:]
adam = optim.scheduled_adam(2e-4)
seen = collections.Counter()
times = 1


def recorded(module, name, of):
    original = getattr(module, name)

    def call(*arguments):
        seen[str((name, *of(*arguments)))] += times
        return original(*arguments)

    setattr(module, name, call)


recorded(cyclegan, "reflected", lambda x, margin_px: (x.shape, margin_px))
recorded(cyclegan, "instance_norm", lambda x: (x.shape,))
# Recorded where the networks call them alone, since a convolution's gradients call the same functions.
cyclegan.convolution = types.SimpleNamespace(**vars(convolution))
for name in ("conv", "conv_transpose"):
    recorded(cyclegan.convolution, name, lambda x, kernel, *form: (x.shape, kernel.shape, *form[:2], x.dtype.name))


def judging(features, kernel_px, stride, padding, dtype, **fields):
    def call(x, train):
        kernel = (kernel_px, kernel_px, x.shape[-1], features)
        seen[str(("conv", x.shape, kernel, stride, padding, dtype))] += times
        return convolution.Conv(features, kernel_px, stride, padding, dtype=dtype, **fields)(x, train=train)

    return call


cyclegan.convolution.Conv = judging

small = {"width": 2, "blocks": 2, "halvings": 1, "outer_px": 3}
methods = {
    "transposed": ({}, {"norm": "none"}, {"identity": 0.5}),
    "resize": ({"upsampling": "resize", "dtype": "bfloat16"}, {}, {"identity": 0.0}),
    "zeros": ({"border": "zeros"}, {}, {"identity": 0.0, "channels_b": 1, "loss": "relativistic"}),
}
walks = {}
for name, (generator, discriminator, fields) in methods.items():
    networks = cyclegan.ResNetGenerator(**small, **generator), cyclegan.PatchGAN(width=2, strides=1, **discriminator)
    method = CycleGAN(*networks, adam, adam, **fields)
    spec = {f"image_{d}": jnp.zeros((3, 12, 12, getattr(method, f"channels_{d}"))) for d in "ab"}
    state = jax.eval_shape(method.init, jax.random.key(0), spec)
    seen.clear()
    jax.eval_shape(method.step, state, spec, jax.random.key(0))
    called = dict(seen)
    parts = benchmark_cyclegan.parts(method, 12, 3)
    seen.clear()
    for part, times in parts.items():
        part.result()
    listed, times = dict(seen), 1
    kinds = collections.Counter()
    for part, count in parts.items():
        kinds[part.kind] += count
    images = {str(part.shape): part.of_maps for part in parts if part.kind == "stem_and_head" and part.shape[3] == 3}
    walks[name] = {"called": called, "listed": listed, "kinds": kinds, "images": images}

refusals = []
unet = CycleGAN(cyclegan.UNetGenerator(), cyclegan.PatchGAN(), adam, adam)
sys.argv = ["benchmark", f"--config={config}", "--rounds=2", "--steps=1", "--size_px=12", f"--out={out}",
            "--config.data.batch_size=2", "--config.method.generator.width=2", "--config.method.generator.halvings=0",
            "--config.method.discriminator.width=2", "--config.data.data_dir=/nowhere"]
config_flag.parse(sys.argv)
printed = io.StringIO()
with contextlib.redirect_stdout(printed):
    benchmark_cyclegan.main(["benchmark"])
flags.FLAGS.size_px = None
for work in (lambda: benchmark_cyclegan.parts(unet, 256, 1), lambda: benchmark_cyclegan.main(["benchmark"])):
    try:
        work()
    except UsageError as error:
        refusals.append(str(error))
print(json.dumps({"walks": walks, "line": printed.getvalue(), "refusals": refusals}))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    command = [sys.executable, "-c", SCRIPT, str(ROOT / "configs/cyclegan_digits.py"), str(folder / "lines.jsonl")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    return {**json.loads(done.stdout), "file": (folder / "lines.jsonl").read_text()}


@pytest.mark.parametrize("name", ["transposed", "resize", "zeros"])
def test_the_layers_listed_are_those_that_a_step_calls(answers, name):
    """Recorded at the functions themselves: shapes, kernels, strides and paddings, and how often."""
    walk = answers["walks"][name]
    assert walk["listed"] == walk["called"] and len(walk["called"]) > 8


def test_layers_count_by_their_kind_and_need_no_gradient_of_given_images(answers):
    # Four calls of a generator of 2 blocks, four of a discriminator of 3 layers.
    kinds = answers["walks"]["transposed"]["kinds"]
    assert kinds == {
        "stem_and_head": 8,
        "strided_convolutions": 4,
        "residual_convolutions": 16,
        "transposed_convolutions": 4,
        "discriminator_convolutions": 12,
        "reflection": 4 * 6,
        "instance_norm": 4 * 7,
    }
    assert answers["walks"]["resize"]["kinds"]["enlargement"] == 4
    assert answers["walks"]["transposed"]["images"] == {"(6, 14, 14, 3)": False, "(3, 14, 14, 3)": True}


def test_one_line_gives_speed_and_shares_without_a_data_set(answers):
    assert answers["line"] == answers["file"]
    line = json.loads(answers["line"])
    assert line["size_px"] == 12 and line["batch_size"] == 2 and line["rounds"] == 2
    low, high = line["step_seconds_range"]
    assert 0 < low <= line["step_seconds"] <= high
    assert line["pairs_per_second"] == pytest.approx(2 / line["step_seconds"], rel=0.01)
    assert line["flops"] > 0 and line["peak_bytes"] > 0 and line["compile_seconds"] > 0
    shares = line["share_by_kind"]
    assert shares.keys() == line["seconds_by_kind"].keys() >= {"reflection", "instance_norm", "residual_convolutions"}
    for kind, share in shares.items():
        seconds = line["seconds_by_kind"][kind]
        # The medians of seconds and shares need not be of one round.
        assert 0 < seconds / high * 0.99 <= share <= 1.01 * seconds / low + 0.01
    assert line["config"].endswith("cyclegan_digits.py") and line["platform"]


def test_what_it_cannot_time_is_refused_in_words(answers):
    unet, size = answers["refusals"]
    assert "ResNetGenerator: time other configs with experiments.benchmark" in unet
    assert "give the images' side as --size_px=256" in size
