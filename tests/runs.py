"""Small real runs of `experiments.train`, each in a process of its own, for the tests that kill, resume and compare."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np

from ssl_jax import build, checkpoint, loop
from ssl_jax.trainer import Trainer

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]

CONFIG = """
from configs.simsiam_digits import get_config as digits


def get_config():
    config = digits()
    config.duration = "60 steps"
    config.log_every = "1 steps"
    config.data.batch_size = 64
    config.data.data_dir = "{data_dir}"
    config.method.encoder.channels = (16, 16)
    config.method.encoder.strides = (2, 2)
    config.method.projector.hidden = 32
    config.method.projector.output = 32
    config.method.predictor.hidden = 16
    config.method.predictor.output = 32
    for name in list(config.evaluators):
        del config.evaluators[name]
    del config.writers.page
    config.checkpoint.every = "5 steps"
    config.checkpoint.best = ""
    return config
"""


def environment(cache: pathlib.Path, **more: str) -> dict[str, str]:
    """The environment of a child: one device, and the compilations of earlier children."""
    return {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_NUM_CPU_DEVICES": "1",
        "PYTHONPATH": str(REPOSITORY),
        **more,
    }


def command(config: pathlib.Path, workdir: pathlib.Path, *overrides: str) -> list[str]:
    """The command line of one training."""
    base = [sys.executable, "-m", "experiments.train", f"--config={config}", f"--workdir={workdir}"]
    return [*base, *overrides]


def train(config, workdir, *overrides, env, check=True) -> subprocess.CompletedProcess:
    """Trains to the end and returns what was printed."""
    done = subprocess.run(
        command(config, workdir, *overrides), env=env, cwd=REPOSITORY, capture_output=True, text=True, timeout=300
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def networks(workdir: pathlib.Path) -> dict[str, np.ndarray]:
    """Every parameter and batch statistic of a run's last checkpoint, by name."""
    params, stats, _ = checkpoint.restore_networks(workdir, ("encoder", "projector", "predictor"))
    leaves = jax.tree_util.tree_flatten_with_path({"params": params, "stats": stats})[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}


def largest_difference(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> float:
    """Over all parameters and statistics of two runs, which must have the same names."""
    assert first.keys() == second.keys() and first
    return max(float(np.max(np.abs(first[name] - second[name]), initial=0.0)) for name in first)


def every_array(workdir, step):
    """Every array of a checkpoint by name."""
    config = json.loads((workdir / "config.json").read_text())
    built = build.arguments(loop.fit, config, given=("folder", "config"))
    trainer = Trainer(built["method"], built["preprocess"], built["data"].spec, seed=config["seed"], mesh=built["mesh"])
    keeper = built["checkpoint"].open(workdir)
    restored = keeper.restore(step, trainer.state_spec)
    keeper.close()
    leaves = jax.tree_util.tree_flatten_with_path(restored)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}


def records(workdir):
    """The lines of a run's metrics, none before it wrote any."""
    file = workdir / "metrics.jsonl"
    return file.read_text().splitlines() if file.is_file() else []


def small_simsiam(width):
    """The config of `simsiam_digits` with few layers, heads of a width, and no augmentation, to be changed further."""
    from configs import simsiam_digits

    config = simsiam_digits.get_config()
    config.method.encoder.channels, config.method.encoder.strides = (8,), (2,)
    config.method.projector.hidden = config.method.projector.output = width
    config.method.predictor.hidden = width
    config.preprocess.first = {"type": "augment.View", "mean": (0.5,), "deviation": (0.5,)}
    return config
