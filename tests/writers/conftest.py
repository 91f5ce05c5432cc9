"""What the tests of the writers share: a run, what a line of scalars counts, and the time, moved by hand."""

import dataclasses
import time

import pytest

from ssl_jax import types


@pytest.fixture
def make_run(tmp_path):
    """Makes runs of 100 steps in `tmp_path`."""

    def make(first_step=0):
        config = {"seed": 3, "method": {"type": "methods.simsiam.SimSiam", "rates": (0.1, 0.2)}}
        return types.Run(tmp_path, config, first_step, total_steps=100, steps_per_epoch=10, batch_size=32)

    return make


@pytest.fixture
def counts():
    """The values that every line of scalars has, as a function of the step."""
    return lambda step: {"epoch": step / 10, "images": step * 32, "seconds": step * 0.5}


@dataclasses.dataclass
class Clock:
    now: float = 1000.0


@pytest.fixture
def clock(monkeypatch):
    """`clock.now` is what `time.monotonic()` answers."""
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    return clock
