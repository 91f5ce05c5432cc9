"""A GAN's run that was killed ends as one that never was, in every array of its state; eight devices equal one."""

import json
import random
import signal
import subprocess
import time

import numpy as np
import pytest

from tests import runs

STEPS, KILLS = 120, 2

CONFIG = """
from ml_collections import ConfigDict


def get_config():
    adam = {{"type": "optim.scheduled_adam", "learning_rate": 1e-3, "b1": 0.5}}
    decay = {{"type": "schedules.Cosine", "start": 0.9, "end": 0.99, "steps": 80}}
    config = ConfigDict()
    config.seed = 0
    config.duration = {steps}
    config.log_every = 1
    config.data = {{
        "type": "data.feed.training",
        "name": "digits",
        "split": "train",
        "batch_size": 64,
        "data_dir": "{data_dir}",
    }}
    view = {{"type": "augment.View", "mean": (0.5,), "deviation": (0.5,)}}
    config.preprocess = {{"type": "augment.Labelled", "view": view}}
    config.method = {{
        "type": "methods.gan.GAN",
        "generator": {{"type": "models.dcgan.Generator", "size_px": 8, "image_channels": 1, "channels": (16,)}},
        "discriminator": {{"type": "models.dcgan.Discriminator", "channels": (16, 16), "norm": "batch"}},
        "generator_optimizer": dict(adam),
        "discriminator_optimizer": {{**adam, "b2": decay, "updates_per_step": 2}},
        "loss": "non_saturating",
        "latent": 8,
        "discriminator_steps": 2,
        "regularizer": {{"type": "regularizers.GradientPenalty", "r1": 1.0, "every": 3}},
        "average": {{"type": "moving_average.MovingAverage", "half_life": 20, "ramp_up": 0.5, "burn_in": 40}},
        "augment": {{
            "type": "diff_augment.DiffAugment",
            "operations": ("translation", "cutout"),
            "probability": {{"type": "schedules.Linear", "start": 0.2, "end": 0.6, "steps": 80}},
        }},
    }}
    config.evaluators = {{}}
    config.checkpoint = {{"type": "checkpoint.Policy", "every": 5, "keep_latest": {steps}}}
    config.writers = {{"files": {{"type": "writers.files.Files"}}}}
    config.mesh = {{"type": "mesh.data_parallel", "devices": None}}
    return config
"""


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    """A config, the environment of its runs and the folder of one that nothing disturbed."""
    folder = tmp_path_factory.mktemp("gan_resume")
    config = folder / "config.py"
    config.write_text(CONFIG.format(data_dir=folder / "data", steps=STEPS))
    env = runs.environment(folder / "cache")
    runs.train(config, folder / "whole", env=env)
    return folder, config, env


def test_a_killed_run_ends_bit_for_bit_like_an_unbroken_one(setting):
    folder, config, env = setting
    broken = folder / "broken"
    seed = time.time_ns() % 2**32
    print(f"kills drawn with seed {seed}")
    draw = random.Random(seed)
    ended = []
    for _ in range(KILLS):
        child = subprocess.Popen(runs.command(config, broken), env=env, cwd=runs.REPOSITORY, stdout=subprocess.DEVNULL)
        goal, deadline = len(runs.records(broken)) + draw.randint(10, 40), time.monotonic() + 120
        while len(runs.records(broken)) < goal and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(draw.random() * 0.05)
        child.send_signal(signal.SIGKILL)
        ended.append(child.wait())
    assert ended.count(-signal.SIGKILL) >= KILLS - 1, "most kills must hit a run at work"
    runs.train(config, broken, env=env)

    expected, result = (runs.every_array(folder / name, STEPS) for name in ("whole", "broken"))
    assert expected.keys() == result.keys()
    parts = {name.split("/")[1] for name in expected if "/" in name}
    assert parts == {"generator", "discriminator", "generator_average"}
    for name in expected:
        np.testing.assert_array_equal(result[name], expected[name], err_msg=name)
    assert [json.loads(line)["step"] for line in runs.records(broken)] == list(range(1, STEPS + 1))
    for name in ("penalty", "discriminator_loss", "generator_loss"):
        curves = [
            [json.loads(line)[f"train/{name}"] for line in runs.records(folder / run)] for run in ("whole", "broken")
        ]
        assert curves[0] == curves[1]
    # Two updates a step and a penalty every third: two steps with, one without.
    penalised = [json.loads(line)["train/penalty"] > 0 for line in runs.records(broken)]
    assert penalised == [True, True, False] * (STEPS // 3)


def test_eight_devices_equal_one(setting):
    folder, config, env = setting
    runs.train(config, folder / "eight", "--config.duration=5", env=env | {"JAX_NUM_CPU_DEVICES": "8"})
    one, eight = (runs.every_array(folder / name, 5) for name in ("whole", "eight"))
    assert runs.largest_difference(one, eight) < 1e-5
