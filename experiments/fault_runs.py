"""Small real runs for `experiments.faults`: how they are started, watched and compared with one that nothing befell."""

import contextlib
import dataclasses
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import numpy as np

from ssl_jax import checkpoint, log
from ssl_jax.types import RunError

STEPS, EVERY_STEPS = 30, 5
PATIENCE_SECONDS = 300.0
REPOSITORY = pathlib.Path(__file__).resolve().parents[1]

CONFIG = """
from configs.simsiam_digits import get_config as digits


def get_config():
    config = digits()
    config.duration = "{steps} steps"
    config.log_every = "1 steps"
    config.data.batch_size = 64
    config.data.data_dir = "{data_dir}"
    config.method.encoder.channels = (16, 16)
    config.method.encoder.strides = (2, 2)
    for part in ("projector", "predictor"):
        config.method[part].hidden = config.method[part].output = 32
    for name in ("knn", "collapse", "probe"):
        del config.evaluators[name]
    config.evaluators.validation.steps = "10 steps"
    del config.writers.page
    config.checkpoint.every = "{every} steps"
    return config
"""

SLOW_EVALUATOR = """
import os, pathlib, time
from experiments import command, train
from ssl_jax.evaluators import knn
look = knn.KNN.__call__
def slowly(*arguments):
    pathlib.Path(os.environ["FAULT_MARK"]).touch()
    until = time.monotonic() + float(os.environ["FAULT_SECONDS"])
    while time.monotonic() < until:
        time.sleep(0.02)
    return look(*arguments)
knn.KNN.__call__ = slowly
command.run(train.main)
"""

JUMPING_CLOCK = """
import os, random, time
draw, now, jumped = random.Random(int(os.environ["FAULT_SEED"])), time.time, [0.0]
def jumping():
    if draw.random() < 0.05:
        jumped[0] += draw.choice((-1e6, -3600.0, -1.0, 1.0, 3600.0, 1e6))
    return now() + jumped[0]
time.time, time.time_ns = jumping, lambda: int(jumping() * 1e9)
from experiments import command, train
command.run(train.main)
"""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What one trial found.

    Attributes:
        happened: in a few words.
        lost: steps that had been logged and were trained again; None where nothing was broken off.
        faults: what must not be, each in words; () is a pass.
        seconds: how long whatever the trial measures took; None where it measures no time.
    """

    happened: str
    lost: int | None = None
    faults: tuple[str, ...] = ()
    seconds: float | None = None


@dataclasses.dataclass(frozen=True)
class Setting:
    """Where trials run.

    Attributes:
        folder: of all trials; holds the config, the data, what XLA compiled, and the unbroken runs.
        draw: of everything random.
    """

    folder: pathlib.Path
    draw: random.Random

    def environment(self, **more: str) -> dict[str, str]:
        """Of a child: one device, and the compilations of earlier children."""
        shared = {
            "JAX_COMPILATION_CACHE_DIR": str(self.folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_NUM_CPU_DEVICES": "1",
            "PYTHONPATH": str(REPOSITORY),
        }
        return {**os.environ, **shared, **more}

    def command(self, run: pathlib.Path, *overrides: str, script: str = "") -> list[str]:
        """The command line that trains in `run`, as `experiments.train` or as a script that changes something first."""
        config = self.folder / "config.py"
        if not config.exists():
            log.replace(config, CONFIG.format(steps=STEPS, every=EVERY_STEPS, data_dir=self.folder / "data"))
        way = ["-c", script] if script else ["-m", "experiments.train"]
        return [sys.executable, *way, f"--config={config}", f"--workdir={run}", *overrides]

    @contextlib.contextmanager
    def started(
        self, words: Sequence[str], *, env: Mapping[str, str] | None = None
    ) -> Iterator[tuple[subprocess.Popen, Callable[[], str]]]:
        """A child at work, and how to read what it wrote on its error stream; killed at the end of the block."""
        with tempfile.TemporaryFile() as said:
            child = subprocess.Popen(
                words, env=self.environment(**(env or {})), cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=said
            )
            try:
                yield child, lambda: os.pread(said.fileno(), 10**6, 0).decode(errors="replace")
            finally:
                child.kill()
                child.wait()

    def finished(self, words: Sequence[str], *, env: Mapping[str, str] | None = None) -> tuple[int, str]:
        """The exit code and the error stream of a command that ends by itself."""
        done = subprocess.run(
            words, env=self.environment(**(env or {})), cwd=REPOSITORY, capture_output=True, timeout=PATIENCE_SECONDS
        )
        return done.returncode, done.stderr.decode(errors="replace")

    def unbroken(self, *overrides: str) -> pathlib.Path:
        """The run folder of a whole run with these overrides, trained at the first call."""
        run = self.folder / ("unbroken" + "".join(overrides).replace("/", "_").replace("--config.", "_"))
        if not log_of(run, "finished"):
            code, said = self.finished(self.command(run, *overrides))
            if code:
                raise RunError(f"the unbroken run in {run} ended with {code}: {' '.join(said.split())[-300:]}")
        return run


def wait_for(child: subprocess.Popen, condition: Callable[[], bool]) -> bool:
    """Whether the condition came true before the child ended; looks every two milliseconds."""
    until = time.monotonic() + PATIENCE_SECONDS
    while child.poll() is None and time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.002)
    return False


def log_of(run: pathlib.Path, key: str) -> object:
    """An entry of a run's `summary.json`, None where there is none yet."""
    file = run / "summary.json"
    return json.loads(file.read_text()).get(key) if file.is_file() else None


def logged(run: pathlib.Path) -> int:
    """The newest step in `metrics.jsonl`."""
    return max((line["step"] for line in log.read_metrics(run)), default=0)


def kept(run: pathlib.Path) -> list[int]:
    """The steps of the complete checkpoints."""
    return sorted(int(path.name) for path in (run / "checkpoints").glob("*") if path.name.isdigit())


def being_saved(run: pathlib.Path) -> bool:
    """Whether a checkpoint is being written."""
    return any((run / "checkpoints").glob("*.orbax-checkpoint-tmp"))


def ended_well(code: int, said: str, codes: tuple[int, ...], *words: str) -> list[str]:
    """What is wrong with how a command ended: its code, a traceback, more than one line of error, missing words."""
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    faults = [] if code in codes else [f"exit code {code}"]
    if "Traceback" in said:
        faults.append("a traceback")
    if code > 0 and len(errors) != 1:
        faults.append(f"{len(errors)} lines of error")
    return faults + [f"no {word!r} in: {' '.join(said.split())[-200:]}" for word in words if word not in said]


def differences(whole: pathlib.Path, run: pathlib.Path, tolerance: float = 0.0) -> list[str]:
    """In what a run that was broken off and ended differs from the whole one; nothing may."""
    faults = []
    for which in ("last", "best"):
        first, second = (_networks(folder, which) for folder in (whole, run))
        if first.keys() != second.keys():
            faults.append(f"other networks or another {which} step")
            continue
        far = max(float(np.max(np.abs(first[name] - second[name]), initial=0.0)) for name in first)
        if not far <= tolerance:
            faults.append(f"parameters of the {which} checkpoint differ by up to {far}")
    told = [_lines(folder) for folder in (whole, run)]
    if [step for step, _ in told[0]] != [step for step, _ in told[1]]:
        faults.append(f"logged steps are {[step for step, _ in told[1]]}")
    elif told[0] != told[1] and not tolerance:
        faults.append("logged values differ")
    for key in ("best", "best_step", "finished"):
        if log_of(whole, key) != log_of(run, key) and not tolerance:
            faults.append(f"{key} in summary.json differs")
    seconds = [line["seconds"] for line in log.read_metrics(run)]
    if seconds != sorted(seconds):
        faults.append("seconds run backwards")
    return faults


def _networks(run, which):
    params, stats, step = checkpoint.restore_networks(run, None, which=which)
    leaves = jax.tree_util.tree_flatten_with_path({"params": params, "stats": stats})[0]
    return {f"{step}/{jax.tree_util.keystr(path)}": np.asarray(leaf) for path, leaf in leaves}


def _lines(run):
    return [
        (line["step"], sorted((name, value) for name, value in line.items() if name != "seconds"))
        for line in log.read_metrics(run)
    ]


def stop(child: subprocess.Popen, number: signal.Signals) -> float:
    """Sends a signal, waits for the end, and returns how many seconds that took."""
    began = time.monotonic()
    child.send_signal(number)
    child.wait(timeout=PATIENCE_SECONDS)
    return time.monotonic() - began
