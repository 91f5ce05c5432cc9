"""The console says where the run is, how fast it goes and what came out, and costs nothing a step."""

import io
import sys
import time

import pytest

from ssl_jax import log
from ssl_jax.writers import console, files


def test_console_without_a_terminal_prints_lines_with_the_speed_of_training_alone(
    tmp_path, capsys, make_run, counts, clock
):
    writer = console.Console(every_seconds=4.0).start(make_run(first_step=20))
    clock.now += 50  # compilation
    for step in range(21, 101):
        writer.progress(step)
        if step == 50:
            clock.now += 7
            writer.scalars(step, {**counts(step), "eval/knn/accuracy": 0.875})
        clock.now += 0.1
    writer.scalars(100, {**counts(100), "train/loss": -0.5})
    clock.now += 10
    writer.progress(100)
    writer.alarm(100, "it collapsed")
    writer.summary({"knn": {"simsiam": 0.5}})
    writer.close()
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == "step 21/100, epoch 2.1"
    assert "step 50/100, epoch 5, 320 images/s, 5 s left, eval/knn/accuracy 0.875" in lines
    assert len(lines[1:-2]) >= 2
    assert all(", 320 images/s" in line for line in lines[1:-2])
    assert lines[-2].endswith("train/loss -0.5, eval/knn/accuracy 0.875")
    assert lines[-1].startswith("reached step 100 of 100 after 1 min 15 s")
    assert str(tmp_path) in lines[-1]
    assert len(lines) < 10
    assert err == "ALARM step 100: it collapsed\n"


def test_console_on_a_terminal_draws_a_bar_that_starts_at_the_first_step(monkeypatch, make_run, counts, clock):
    pytest.importorskip("tqdm")
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", screen)
    writer = console.Console().start(make_run(first_step=40))
    assert "40/100 steps" in screen.getvalue()
    for step in range(41, 71):
        clock.now += 0.5
        writer.progress(step)
        writer.scalars(step, {**counts(step), "train/loss": -0.25})
    writer.scalars(70, {**counts(70), "eval/knn/accuracy": 0.75})
    writer.alarm(70, "it collapsed")
    writer.close()
    text = screen.getvalue()
    assert "ALARM step 70: it collapsed\n" in text
    assert "70/100 steps, 64 images/s, 15 s left, loss -0.25, knn/accuracy 0.75" in text.rpartition("ALARM")[2]


def test_progress_costs_microseconds(make_run):
    writer = log.combine([settings.start(make_run()) for settings in (console.Console(), files.Files())])
    began = time.perf_counter()
    for step in range(10_000):
        writer.progress(step)
    assert (time.perf_counter() - began) / 10_000 < 50e-6
    writer.close()
