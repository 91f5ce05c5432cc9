"""Metrics read late, checked and logged as means; nothing unsound reaches a checkpoint."""

import collections
import math
import time

import jax
import numpy as np

from ssl_jax import log
from ssl_jax.checkpoint import Checkpoints
from ssl_jax.trainer import Trainer
from ssl_jax.types import Run, RunError, TrainState, Writer

IN_FLIGHT_STEPS = 2
"""How far the host runs ahead of the device: enough to hide its own work, few enough to stop at once."""


class Journal:
    """What a run says of its training, and the gate before its checkpoints.

    Metrics are read a little after they were made, so the device never waits for the host; the first one that is not
    finite ends the run, and only states whose every number is finite are saved.
    """

    def __init__(self, run: Run, out: Writer, keeper: Checkpoints, log_every: int, trainer: Trainer):
        self._run, self._out, self._keeper, self._log_every, self._trainer = run, out, keeper, log_every, trainer
        self._pending = collections.deque()
        self._window = []
        self._began = time.monotonic() - log.seconds_so_far(run.folder, run.first_step)

    def clock(self, step: int) -> dict[str, float]:
        """Epochs, images and seconds so far, resumed runs included."""
        return {
            "epoch": step / self._run.steps_per_epoch,
            "images": step * self._run.batch_size,
            "seconds": time.monotonic() - self._began,
        }

    def add(self, step: int, metrics: jax.Array) -> None:
        """Takes the metrics of the update that ended at `step`, float32 [m], and reads older ones."""
        self._pending.append((step, metrics))
        while len(self._pending) > IN_FLIGHT_STEPS:
            self._read()

    def drain(self) -> None:
        """Reads all metrics taken so far; raises RunError for one that is not finite."""
        while self._pending:
            self._read()

    def save(self, step: int, state: TrainState) -> None:
        """Saves a state once all its metrics are read; raises RunError if one of its numbers is not finite."""
        self.drain()
        if not bool(self._trainer.is_finite(state)):
            self._refuse("a parameter", "not finite", step)
        if self._keeper.latest() != step:
            self._keeper.save(step, state, config=self._run.config)

    def _read(self):
        step, metrics = self._pending.popleft()
        values = dict(zip(self._trainer.metric_names, np.asarray(metrics).tolist(), strict=True))
        for name, value in values.items():
            if not math.isfinite(value):
                self._refuse(name, value, step)
        self._window.append(values)
        if step % self._log_every == 0 or step == self._run.total_steps:
            means = {f"train/{name}": sum(v[name] for v in self._window) / len(self._window) for name in values}
            self._out.scalars(step, {**self.clock(step), **means})
            self._window.clear()

    def _refuse(self, name, value, step):
        self._keeper.wait()
        good = self._keeper.latest()
        kept = f"the last good checkpoint is step {good}" if good else "no checkpoint was saved before"
        raise RunError(
            f"{name} is {value} at step {step}: the run stops, and {kept} in {self._run.folder}; "
            "a lower learning rate, a warm-up or float32 usually helps (in a new --workdir)"
        )
