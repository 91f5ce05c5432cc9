"""A CycleGAN's run that was killed ends as one that never was, in every array of its state; two devices equal one."""

import json
import random
import re
import signal
import subprocess
import time

import numpy as np
import pytest

from tests import runs

STEPS, KILLS, POOL, RATE = 100, 2, 10, 5e-5

CONFIG = """
from ml_collections import ConfigDict


def get_config(form):
    falling = {{"type": "schedules.EpochwiseLinear", "start": {rate}}}
    falling |= {{"hold_steps": 30, "decay_steps": 60, "epoch_steps": 10}}
    rates = {{
        "generator": falling,
        "discriminator": {{"type": "schedules.Linear", "start": {rate}, "end": 0.0, "steps": 90, "hold_steps": 40}},
    }}
    adams = {{
        f"{{name}}_optimizer": {{"type": "optim.scheduled_adam", "learning_rate": rate, "b1": 0.5, "b2": 0.999}}
        for name, rate in rates.items()
    }}
    generator = {{"type": "models.cyclegan.ResNetGenerator", "width": 4, "blocks": 1, "halvings": 1, "outer_px": 3}}
    discriminator = {{"type": "models.cyclegan.PatchGAN", "width": 4, "strides": 1}}
    pools = {{"resident": 1, "stream": 2}}[form]
    config = ConfigDict()
    config.seed = 0
    config.duration = {steps}
    config.log_every = 1
    config.data = {{
        "type": "data.unpaired.training",
        "name_a": "digit_domains",
        "split_a": "trainA",
        "name_b": "digit_domains",
        "split_b": "trainB[:93]",
        "batch_size": 4,
        "feeding": form,
        "data_dir": "{data_dir}",
    }}
    view = {{"type": "augment.View", "flip": {{"type": "augment.Flip", "probability": 0.5}}}}
    config.preprocess = {{"type": "augment.Unpaired", "a": view}}
    config.method = {{
        "type": "methods.cyclegan.CycleGAN",
        # Weights of a size that a hundred steps hardly change: rounding stays rounding.
        "generator": {{**generator, "deviation": 0.2}},
        "discriminator": {{**discriminator, "deviation": 0.2}},
        **adams,
        "identity": 0.5,
        "pool": {{"type": "image_pool.ImagePool", "size": {pool} // pools, "pools": pools}},
        "regularizer": {{"type": "regularizers.GradientPenalty", "r1": 1.0, "every": 3}},
        "average": {{"type": "moving_average.MovingAverage", "half_life": 20, "ramp_up": 0.5}},
        "augment": {{"type": "diff_augment.DiffAugment", "probability": 0.6}},
    }}
    config.evaluators = {{}}
    config.checkpoint = {{"type": "checkpoint.Policy", "every": 5, "keep_latest": {steps}}}
    config.writers = {{"files": {{"type": "writers.files.Files"}}}}
    config.mesh = {{"type": "mesh.data_parallel", "devices": None}}
    return config
"""


@pytest.fixture(scope="module", params=["resident", "stream"])
def setting(request, tmp_path_factory):
    """A config, the environment of its runs and the folder of one that nothing disturbed; a feed each."""
    folder = tmp_path_factory.mktemp(f"cyclegan_{request.param}")
    config = folder / "config.py"
    config.write_text(CONFIG.format(data_dir=folder / "data", steps=STEPS, pool=POOL, rate=RATE))
    env = runs.environment(folder / "cache")
    config = f"{config}:{request.param}"
    runs.train(config, folder / "whole", env=env)
    return folder, config, env


def curves(workdir):
    """The step and all training metrics of every line."""
    lines = [json.loads(line) for line in runs.records(workdir)]
    return [{name: value for name, value in line.items() if name == "step" or name[:6] == "train/"} for line in lines]


def test_a_killed_run_ends_bit_for_bit_like_an_unbroken_one(setting):
    folder, config, env = setting
    broken = folder / "broken"
    seed = time.time_ns() % 2**32
    print(f"kills drawn with seed {seed}")
    draw = random.Random(seed)
    ended = []
    for _ in range(KILLS):
        child = subprocess.Popen(runs.command(config, broken), env=env, cwd=runs.REPOSITORY, stdout=subprocess.DEVNULL)
        goal, deadline = len(runs.records(broken)) + draw.randint(10, 35), time.monotonic() + 120
        while len(runs.records(broken)) < goal and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(draw.random() * 0.05)
        child.send_signal(signal.SIGKILL)
        ended.append(child.wait())
    assert ended.count(-signal.SIGKILL) >= KILLS - 1, "most kills must hit a run at work"
    runs.train(config, broken, env=env)

    expected, result = (runs.every_array(folder / name, STEPS) for name in ("whole", "broken"))
    assert expected.keys() == result.keys()
    parts = {tuple(name.split("/")[:2]) for name in expected if name.split("/")[0] in ("params", "opt", "memory")}
    networks = ("generator_ab", "generator_ba", "discriminator_a", "discriminator_b")
    assert parts == {
        *(("params", name) for name in (*networks, "generator_ab_average", "generator_ba_average")),
        *(("opt", name) for name in ("generators", "discriminators")),
        *(("memory", name) for name in ("pool_a", "pool_b")),
    }
    for name in expected:
        np.testing.assert_array_equal(result[name], expected[name], err_msg=name)
    # The pools were full early, and their images have changed places since.
    filled = runs.every_array(folder / "whole", 20)
    for pool in ("memory/pool_a", "memory/pool_b"):
        assert np.sum(filled[f"{pool}/filled"]) == POOL
        assert np.mean(filled[f"{pool}/images"] != expected[f"{pool}/images"]) > 0.5
    assert [line["step"] for line in curves(broken)] == list(range(1, STEPS + 1))
    assert curves(broken) == curves(folder / "whole")
    # A penalty every third step, and both rates on their ways.
    assert [line["train/penalty"] > 0 for line in curves(broken)] == [step % 3 == 0 for step in range(STEPS)]
    for name in ("generator_rate", "discriminator_rate"):
        assert 0 <= curves(broken)[-1][f"train/{name}"] < RATE / 2


def is_free(name):
    """Whether it is a bias before an instance norm, which takes it out again."""
    generator = re.fullmatch(r"params/generator_(ab|ba)(_average)?/(stem|down1|block1/conv\d|up1)/bias", name)
    return bool(generator or re.fullmatch(r"params/discriminator_[ab]/conv2/bias", name))


def test_two_devices_equal_one(setting):
    folder, config, env = setting
    steps = 5
    runs.train(config, folder / "two", f"--config.duration={steps}", env=env | {"JAX_NUM_CPU_DEVICES": "2"})
    one, two = (runs.every_array(folder / name, steps) for name in ("whole", "two"))
    assert np.sum(one["memory/pool_b/filled"]) == POOL
    # The gradient of such a bias is the rounding of zero, and Adam makes steps of its rate of it, this way or that.
    free = {name for name in one if is_free(name)}
    assert len(free) == 2 * (2 * 5 + 1)
    for name in free:
        assert np.max(np.abs(one[name] - two[name])) <= 2.1 * RATE * steps
    assert runs.largest_difference(*({name: run[name] for name in run.keys() - free} for run in (one, two))) < 1e-5
