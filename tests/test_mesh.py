"""The same global batch gives the same parameters on one device and on eight."""

import re
import subprocess
import sys

import jax
import numpy as np
import pytest

from ssl_jax import mesh
from ssl_jax.types import UsageError
from tests import runs

FIVE = ("--config.duration=5", "--config.checkpoint.every=5")


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mesh")
    config = folder / "config.py"
    config.write_text(runs.CONFIG.format(data_dir=folder / "data"))
    env = runs.environment(folder / "cache")
    runs.train(config, folder / "one", *FIVE, env=env)
    return folder, config, env


def test_eight_devices_equal_one(setting):
    folder, config, env = setting
    runs.train(config, folder / "eight", *FIVE, env=env | {"JAX_NUM_CPU_DEVICES": "8"})
    assert runs.largest_difference(runs.networks(folder / "one"), runs.networks(folder / "eight")) < 1e-5


@pytest.mark.parametrize("first, second", [("1", "8"), ("8", "1")])
def test_checkpoint_goes_on_with_other_devices(setting, first, second):
    folder, config, env = setting
    workdir = folder / f"from_{first}_to_{second}"
    ten = ("--config.duration=10", "--config.checkpoint.every=5")
    whole = folder / "ten"
    if not whole.exists():
        runs.train(config, whole, *ten, env=env)
    stopped = subprocess.run(
        [sys.executable, "-c", STOP_AT_FIVE, *runs.command(config, workdir, *ten)[3:]],
        env=env | {"JAX_NUM_CPU_DEVICES": first},
        cwd=runs.REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert "stopped by SIGTERM at step 5" in stopped.stderr, stopped.stderr
    runs.train(config, workdir, *ten, env=env | {"JAX_NUM_CPU_DEVICES": second})
    assert runs.largest_difference(runs.networks(whole), runs.networks(workdir)) < 1e-5


STOP_AT_FIVE = """
import os, signal, sys
from ssl_jax import log
from experiments import command, train
progress = log.combine([]).__class__.progress
def stop(self, step):
    if step == 5:
        os.kill(os.getpid(), signal.SIGTERM)
    progress(self, step)
log.combine([]).__class__.progress = stop
command.run(train.main)
"""


def test_batch_that_the_devices_do_not_divide_is_refused(setting):
    folder, config, env = setting
    done = runs.train(config, folder / "odd", *FIVE, env=env | {"JAX_NUM_CPU_DEVICES": "6"}, check=False)
    assert done.returncode == 2
    assert "batch_size=64 is not divided by 6 devices; take 60 or 66" in done.stderr
    assert not (folder / "odd").exists()


def test_more_devices_than_there_are_are_refused():
    with pytest.raises(UsageError, match=re.escape(f"devices=99, but this machine has {len(jax.devices())}")):
        mesh.data_parallel(devices=99)


def test_put_keeps_the_values():
    batch = {"image": np.arange(8 * 3).reshape(8, 3)}
    placed = mesh.put(batch, mesh.data_parallel(devices=1))
    np.testing.assert_array_equal(placed["image"], batch["image"])


def test_put_takes_trees_of_arrays():
    one = mesh.data_parallel(devices=1)
    tree = {
        "image": np.arange(24.0).reshape(4, 3, 2),
        "more": (np.arange(4, dtype=np.int32), np.ones((4, 1), np.uint8)),
    }
    tree["image"] = tree["image"].astype(np.float32)
    placed = mesh.put(tree, one)
    assert jax.tree.structure(placed) == jax.tree.structure(tree)
    for ours, theirs in zip(jax.tree.leaves(placed), jax.tree.leaves(tree), strict=True):
        assert ours.sharding.spec == jax.sharding.PartitionSpec(("data", "shard")) and ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(mesh.put(tree["image"], one), tree["image"])


@pytest.mark.parametrize(
    ("environment", "hint"),
    [
        (
            {"SLURM_NTASKS": "8", "SLURM_STEP_NODELIST": "n[1-2]"},
            "SLURM_NTASKS=8: give --processes=0 to train together",
        ),
        ({"SLURM_NTASKS": "8"}, ""),  # in the batch script itself, whose one process is no task
        ({"SLURM_NTASKS": "1", "SLURM_STEP_NODELIST": "n1"}, ""),
        (
            {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"},
            "OMPI_COMM_WORLD_SIZE=2: give --processes=0 to train together",
        ),
        ({}, ""),
    ],
)
def test_tasks_that_train_each_by_itself_are_noticed(monkeypatch, environment, hint):
    for name in ("SLURM_NTASKS", "SLURM_STEP_NODELIST", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert mesh.hint_of_cluster() == hint
