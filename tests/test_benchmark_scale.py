"""`experiments.benchmark_scale`: which trainings it makes, what it compares of them, and one that fails."""

import json
import subprocess
import sys
import time

import pytest

from experiments import benchmark_scale
from ssl_jax import build
from ssl_jax.types import RunError, UsageError
from tests import runs


def test_the_trainings_are_those_that_divide():
    assert benchmark_scale.rows([2, 1], [1, 0], 1) == [(1, 1, 1), (2, 1, 1), (2, 2, 1)]
    assert benchmark_scale.rows([3, 4], [2], 2) == [(4, 2, 1), (4, 2, 2)]


def test_the_difference_is_the_largest_of_any_step():
    first = {"loss": [1.0, 2.0], "other_loss": [0.0, 1.0]}
    assert benchmark_scale.difference({"loss": [1.0, 2.5], "other_loss": [0.25, 1.0]}, first) == 0.5


def test_one_and_two_devices_and_processes_train_alike(tmp_path):
    file = tmp_path / "config.json"
    file.write_text(json.dumps(build.normalised(runs.small_simsiam(64).to_dict())))
    words = [f"--config={file}", "--synthetic=64x8x8x1", "--config.data.batch_size=16"]
    words += ["--devices=1,2", "--shards=0", "--processes=2", "--steps=2", f"--out={tmp_path / 'lines.jsonl'}"]
    done = subprocess.run(
        [sys.executable, "-m", "experiments.benchmark_scale", *words],
        env=runs.environment(tmp_path / "cache"),
        cwd=runs.REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "lines.jsonl").read_text().splitlines()]
    one, two, both = lines
    assert [(line["devices"], line["shards"], line["processes"]) for line in lines] == [(1, 1, 1), (2, 2, 1), (2, 2, 2)]
    assert max(line["difference"] for line in lines) < 1e-5 and one["difference"] == 0
    assert one["ring_bytes"] == 0 < two["ring_bytes"] == both["ring_bytes"]
    assert 0.5 * one["state_bytes"] <= two["state_bytes"] < 0.6 * one["state_bytes"]
    assert "difference" in done.stdout and "ring MB" in done.stdout


def failing(monkeypatch, *sources):
    """What is said of processes that run these instead."""
    children, start = iter(sources), subprocess.Popen

    def begin(words, **more):
        return start([sys.executable, "-c", next(children)], **more)

    monkeypatch.setattr(benchmark_scale.subprocess, "Popen", begin)
    return benchmark_scale._in_processes(2, 1, len(sources))


WAIT = "import time; time.sleep(600)"


@pytest.mark.parametrize("code", [1, 2])
def test_the_first_that_fails_is_told_and_the_others_are_ended(monkeypatch, code):
    began = time.monotonic()
    with pytest.raises(UsageError if code == 2 else RunError) as refused:
        failing(monkeypatch, WAIT, f"import sys; print('error: no room', file=sys.stderr); sys.exit({code})")
    assert str(refused.value) == "2 process(es), 2 devices, 1 shards: no room"
    assert time.monotonic() - began < 60


def test_one_that_takes_too_long(monkeypatch):
    monkeypatch.setattr(benchmark_scale, "LIMIT_SECONDS", 0.5)
    with pytest.raises(RunError, match=r"^1 process\(es\), 2 devices, 1 shards: not over after 0\.5 seconds$"):
        failing(monkeypatch, WAIT)
