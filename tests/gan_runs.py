"""Two small real runs of a GAN, and calls of a script in one process, for the tests of what a GAN is good for."""

import functools
import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests import runs

CONFIG = """
from ml_collections import ConfigDict


def get_config(form="plain"):
    adam = {{"type": "optim.scheduled_adam", "learning_rate": 2e-3, "b1": 0.5, "b2": 0.999}}
    data = {{"type": "data.feed.training", "name": "digits", "split": "train", "batch_size": 64}}
    config = ConfigDict()
    config.seed = 0
    config.duration = "40 steps"
    config.log_every = "20 steps"
    config.data = {{**data, "data_dir": "{data_dir}", "class_names": tuple("0123456789")}}
    view = {{"type": "augment.View", "mean": (0.5,), "deviation": (0.5,)}}
    config.preprocess = {{"type": "augment.Labelled", "view": view}}
    classes = {{"classes": 10}} if form == "classes" else {{}}
    generator = {{"type": "models.dcgan.Generator", "size_px": 8, "image_channels": 1, "channels": (16,)}}
    discriminator = {{"type": "models.dcgan.Discriminator", "channels": (16,), "norm": "none"}}
    config.method = {{
        "type": "methods.gan.GAN",
        "generator": {{**generator, **classes}},
        "discriminator": {{**discriminator, **classes}},
        "generator_optimizer": dict(adam),
        "discriminator_optimizer": dict(adam),
        "loss": "hinge",
        "latent": 8,
        **classes,
    }}
    if classes:
        config.method.latent_law = "uniform"
    else:
        config.method.average = {{"type": "moving_average.MovingAverage", "half_life": "1 epochs", "ramp_up": 0.5}}
    config.evaluators = {{}}
    config.checkpoint = {{"type": "checkpoint.Policy", "every": "20 steps"}}
    config.writers = {{"files": {{"type": "writers.files.Files"}}}}
    config.mesh = {{"type": "mesh.data_parallel", "devices": None}}
    return config
"""

WORDS = ("null", "eins", "zwei/drei", *"3456789")
"""What the classes of the run "classes" are called, one of them with a character that no file name has."""

_CALLS = """
import contextlib, importlib, io, json, sys
from absl import flags
from ssl_jax import types

script = importlib.import_module("experiments." + sys.argv[1])
own = [flag.name for flag in flags.FLAGS.get_key_flags_for_module(script)]
for words in json.load(sys.stdin):
    for name in own:
        flags.FLAGS[name].unparse()
    printed, said = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said):
            script.main(flags.FLAGS([sys.argv[1], *words]))
        error = ""
    except (types.UsageError, types.RunError) as raised:
        error = f"{type(raised).__name__}: {raised}"
    print(json.dumps({"printed": printed.getvalue(), "said": said.getvalue(), "error": error}))
"""


def train(factory: pytest.TempPathFactory, name: str) -> pathlib.Path:
    """A new folder with links to the runs "plain" and "classes" and to their "data"; a process trains them once."""
    folder, trained = factory.mktemp(name), _trained(factory.getbasetemp())
    for linked in ("plain", "classes", "data"):
        (folder / linked).symlink_to(trained / linked)
    return folder


@functools.cache
def _trained(base):
    folder = base / "gan_runs"
    folder.mkdir()
    (folder / "config.py").write_text(CONFIG.format(data_dir=folder / "data"))
    for form in ("plain", "classes"):
        runs.train(f"{folder / 'config.py'}:{form}", folder / form, env=_environment())
    file = folder / "classes" / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "data": {**config["data"], "class_names": WORDS}}))
    return folder


def _environment():
    # The tests' own folder of compiled programs, so that the next test run finds them.
    return runs.environment(pathlib.Path(os.environ["JAX_COMPILATION_CACHE_DIR"]))


def calls(script: str, *words: list[str]) -> list[dict[str, str]]:
    """Calls `experiments.<script>` with each list of words, all in one process.

    Returns:
        For each call what it `printed`, what it `said` on the error stream, and the `error` it ended with, "" for none.
    """
    command = [sys.executable, "-W", "error", "-c", _CALLS, script]
    done = subprocess.run(
        command,
        input=json.dumps(words),
        env=_environment(),
        cwd=runs.REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
