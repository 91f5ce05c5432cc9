"""A run that was killed, at any moment and however often, ends as one that never was."""

import json
import random
import signal
import subprocess
import time

import numpy as np
import pytest

from tests import runs

KILLS = 4


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resume")
    config = folder / "config.py"
    config.write_text(runs.CONFIG.format(data_dir=folder / "data"))
    return folder, config, runs.environment(folder / "cache")


def records(workdir):
    file = workdir / "metrics.jsonl"
    return file.read_text().count("\n") if file.is_file() else 0


@pytest.mark.parametrize("feeding", ["resident", "stream"])
def test_killed_run_ends_bit_for_bit_like_an_unbroken_one(setting, feeding):
    folder, config, env = setting
    option = (f"--config.data.feeding={feeding}", "--config.duration=150")
    whole, broken = folder / f"whole_{feeding}", folder / f"broken_{feeding}"
    runs.train(config, whole, *option, env=env)

    seed = time.time_ns() % 2**32
    print(f"kills drawn with seed {seed}")
    draw = random.Random(seed)
    seen, ended = [], []
    for _ in range(KILLS):
        child = subprocess.Popen(
            runs.command(config, broken, *option), env=env, cwd=runs.REPOSITORY, stdout=subprocess.DEVNULL
        )
        # With a save every 5 steps of a few milliseconds each, a save is nearly always under way.
        goal, deadline = records(broken) + draw.randint(1, 30), time.monotonic() + 120
        while records(broken) < goal and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(draw.random() * 0.05)
        child.send_signal(signal.SIGKILL)
        ended.append(child.wait())
        seen.append(sorted(item.name for item in (broken / "checkpoints").iterdir()))
    assert ended.count(-signal.SIGKILL) >= KILLS - 1, "most kills must hit a run at work"
    runs.train(config, broken, *option, env=env)

    expected, result = runs.networks(whole), runs.networks(broken)
    assert expected.keys() == result.keys()
    for name in expected:
        np.testing.assert_array_equal(result[name], expected[name], err_msg=f"{name}; checkpoints at each kill: {seen}")
    steps = [json.loads(line)["step"] for line in (broken / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 151)), "every step is logged once"
    losses = [
        [json.loads(line)["train/loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in (whole, broken)
    ]
    assert losses[0] == losses[1]


def test_sigterm_saves_and_says_so(setting):
    folder, config, env = setting
    workdir = folder / "terminated"
    long = ("--config.duration=100000", "--config.checkpoint.every=50000")
    child = subprocess.Popen(
        runs.command(config, workdir, *long), env=env, cwd=runs.REPOSITORY, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while records(workdir) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(signal.SIGTERM)
    error = child.communicate(timeout=60)[1]
    assert child.returncode == 1
    assert "stopped by SIGTERM at step" in error and "Traceback" not in error
    step = int(error.split("at step ")[1].split(" ")[0])
    assert (workdir / "checkpoints" / str(step)).is_dir()


def test_finished_run_is_left_alone(setting):
    folder, config, env = setting
    workdir = folder / "finished"
    runs.train(config, workdir, "--config.duration=5", env=env)
    before = (workdir / "metrics.jsonl").read_bytes(), (workdir / "summary.json").read_bytes()
    again = runs.train(config, workdir, "--config.duration=5", env=env)
    assert "finished at step 5" in again.stdout
    assert before == ((workdir / "metrics.jsonl").read_bytes(), (workdir / "summary.json").read_bytes())


def test_run_killed_after_its_last_save_is_brought_to_its_end(setting):
    folder, config, env = setting
    workdir = folder / "nearly"
    runs.train(config, workdir, "--config.duration=5", env=env)
    summary = json.loads((workdir / "summary.json").read_text())
    (workdir / "summary.json").write_text(json.dumps(summary | {"finished": False}))
    runs.train(config, workdir, "--config.duration=5", env=env)
    assert json.loads((workdir / "summary.json").read_text())["finished"]


def test_another_config_is_refused_without_harm(setting):
    folder, config, env = setting
    workdir = folder / "claimed"
    runs.train(config, workdir, "--config.duration=5", env=env)
    before = {path: path.read_bytes() for path in sorted(workdir.rglob("*")) if path.is_file()}
    other = runs.train(config, workdir, "--config.duration=5", "--config.seed=1", env=env, check=False)
    assert other.returncode == 2
    assert "config.seed is 0 there, 1 here" in other.stderr and other.stderr.count("\n") == 1
    assert before == {path: path.read_bytes() for path in sorted(workdir.rglob("*")) if path.is_file()}
