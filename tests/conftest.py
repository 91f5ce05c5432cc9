"""What all tests share: strict shapes, one folder of compiled programs, and child processes with several devices."""

import os
import pathlib
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest
from absl import flags

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]


def pytest_configure(config):
    """Refuses implicit broadcasting between ranks, here and in child processes, and shares what XLA has compiled."""
    shared = {
        "jax_numpy_rank_promotion": "raise",
        # Below the pytest cache, so that all workers and the next run find it, and `--cache-clear` empties it.
        "jax_compilation_cache_dir": str(config.cache.mkdir("jax")),
        "jax_persistent_cache_min_compile_time_secs": 0.3,
    }
    # Scripts that tests call in this process would have it keep the memory of every test after them.
    os.environ.setdefault("SSL_JAX_KEEP_HEAP", "0")
    for name, value in shared.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)


def _define_again(self, name, flag, define=flags.FlagValues.__setitem__):
    flag.allow_override = True
    define(self, name, flag)


# One process of tests imports several scripts, whose flags may have one name; the newest has it.
flags.FlagValues.__setitem__ = _define_again


@pytest.fixture(scope="session")
def devices():
    """This process's devices as a mesh; a test that needs eight asks for `child`."""
    from ssl_jax import mesh

    return mesh.data_parallel(1)


@pytest.fixture
def child(tmp_path):
    """Runs Python source in a process of its own, with `devices` virtual CPU devices; its output and error stream.

    `blocked` names packages that cannot be imported there; `prefix` is a command that takes the child's as arguments.
    """

    def run(source, *arguments, devices=1, blocked=(), prefix=()):
        file = tmp_path / "child.py"
        block = f"import sys\nfor name in {tuple(blocked)!r}:\n    sys.modules[name] = None\n"
        file.write_text(block + textwrap.dedent(source))
        environment = {**os.environ, "JAX_NUM_CPU_DEVICES": str(devices), "PYTHONPATH": str(REPOSITORY)}
        command = [*prefix, sys.executable, str(file), *map(str, arguments)]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-4000:]
        return done

    return run


@pytest.fixture(scope="session")
def digits_npz(tmp_path_factory):
    """An `.npz` file with 160 of scikit-learn's handwritten digits: `image` uint8 [160, 8, 8, 1] and `label` [160]."""
    from sklearn import datasets

    scans = datasets.load_digits()
    file = tmp_path_factory.mktemp("digits") / "digits.npz"
    image = np.round(scans.images[:160, ..., None] * 255 / 16).astype(np.uint8)
    np.savez(file, image=image, label=scans.target[:160])
    return file
