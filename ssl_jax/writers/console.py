"""A run on the console: a progress bar on a terminal, plain lines elsewhere, the table of accuracies at the end."""

import collections
import dataclasses
import importlib.util
import math
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from ssl_jax import log, types

_WINDOW_SECONDS = 20.0
_SAMPLE_SECONDS = 0.2


@dataclasses.dataclass(frozen=True)
class Console:
    """A progress bar on a terminal (stderr); elsewhere plain lines on stdout.

    Attributes:
        every_seconds: the least time between two plain lines; each evaluation gets its line besides.
    """

    every_seconds: float = 30.0

    def start(self, run: types.Run) -> types.Writer:
        bar = None
        if sys.stderr.isatty():
            if importlib.util.find_spec("tqdm") is None:
                log.say("tqdm is not installed: plain lines instead of a progress bar")
            else:
                import tqdm

                layout = "{percentage:3.0f}%|{bar:24}| {n_fmt}/{total_fmt} steps{postfix}"
                bar = tqdm.tqdm(
                    total=run.total_steps,
                    initial=run.first_step,
                    bar_format=layout,
                    dynamic_ncols=True,
                    file=sys.stderr,
                )
        return ConsoleWriter(run, every_seconds=self.every_seconds, bar=bar)


class ConsoleWriter:
    """What `Console` starts; images a second are those of the last 20 seconds of training, evaluations left out."""

    def __init__(self, run: types.Run, *, every_seconds: float, bar: Any):
        self._run = run
        self._every_seconds = every_seconds
        self._bar = bar
        self._step = run.first_step
        self._begun = self._printed = time.monotonic()
        self._sampled = -math.inf
        self._samples: collections.deque[tuple[float, int]] = collections.deque()
        self._images_per_second = math.nan
        self._losses: dict[str, float] = {}
        self._headline: dict[str, float] = {}

    def progress(self, step: int) -> None:
        self._step = step
        now = time.monotonic()
        if now - self._sampled < _SAMPLE_SECONDS:
            return
        self._sampled = now
        self._samples.append((now, step))
        while len(self._samples) > 2 and self._samples[0][0] < now - _WINDOW_SECONDS:
            self._samples.popleft()
        (then, step_then), _ = self._samples[0], self._samples[-1]
        if now > then:
            self._images_per_second = (step - step_then) * self._run.batch_size / (now - then)
        if self._bar is not None:
            self._draw()
        elif now - self._printed >= self._every_seconds:
            self._print({**self._losses, **self._headline})

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        named = {name: value for name, value in values.items() if name not in log.COUNTS}
        train = {name: value for name, value in named.items() if name.startswith("train/")}
        losses = {name: value for name, value in train.items() if "loss" in name.rpartition("/")[2]}
        self._losses |= losses or dict(list(train.items())[:1])
        evaluated = {name: value for name, value in named.items() if name.startswith("eval/")}
        if evaluated:
            # An evaluation takes its time between two steps; the speed shown is that of training alone.
            self._samples.clear()
            accuracies = {name: value for name, value in evaluated.items() if "accuracy" in name}
            self._headline |= dict(list((accuracies or evaluated).items())[:1])
            if self._bar is None:
                self._print(evaluated, step=step)

    def images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Shows nothing: pictures need another writer."""

    def arrays(self, step: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Shows nothing: arrays need another writer."""

    def alarm(self, step: int, sentence: str) -> None:
        log.say(f"ALARM step {step}: {sentence}")

    def summary(self, values: Mapping[str, Any]) -> None:
        """Shows nothing: a script prints what a finished run found."""

    def close(self) -> None:
        if self._bar is not None:
            self._draw()
            self._bar.close()
        took = log.duration(time.monotonic() - self._begun)
        ended = "reached" if self._step >= self._run.total_steps else "stopped at"
        print(f"{ended} step {self._step} of {self._run.total_steps} after {took}; run folder {self._run.folder}")
        sys.stdout.flush()

    def _speed(self) -> list[str]:
        if not self._images_per_second > 0:
            return []
        left = (self._run.total_steps - self._step) * self._run.batch_size / self._images_per_second
        return [f"{self._images_per_second:,.0f} images/s", f"{log.duration(left)} left"]

    def _draw(self) -> None:
        shown = {**dict(list(self._losses.items())[:2]), **dict(list(self._headline.items())[-2:])}
        values = [f"{name.partition('/')[2]} {value:.3g}" for name, value in shown.items()]
        self._bar.n = self._step
        self._bar.set_postfix_str(", ".join(self._speed() + values), refresh=False)
        self._bar.refresh()

    def _print(self, values: Mapping[str, float], *, step: int | None = None) -> None:
        self._printed = time.monotonic()
        step = self._step if step is None else step
        at = [f"step {step}/{self._run.total_steps}", f"epoch {step / self._run.steps_per_epoch:.4g}"]
        shown = [f"{name} {value:.4g}" for name, value in list(values.items())[:8]]
        more = [f"and {len(values) - 8} more"] if len(values) > 8 else []
        print(", ".join(at + self._speed() + shown + more), flush=True)
