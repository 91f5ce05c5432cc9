"""Several processes train as one does, come together or say why not, and end together."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests import runs, scale_runs

COMPARED = ("simsiam", "simsiam_stream", "gan")
STEPS = 10


def until_step_5(folder, place, other):
    """A copy of a run as it was after step 5."""
    shutil.copytree(folder / place, folder / other)
    shutil.rmtree(folder / other / "checkpoints" / "10")
    (folder / other / "summary.json").unlink()


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    """The folder of the same runs in one process and in two, the environment, and what the two printed."""
    folder = tmp_path_factory.mktemp("processes")
    env = runs.environment(folder / "cache")
    scale_runs.finish(scale_runs.start([f"{name}=alone/{name}" for name in COMPARED], folder, STEPS, 1, env))
    until_step_5(folder, "alone/simsiam_stream", "from_one")
    jobs = [f"{name}=two/{name}" for name in COMPARED]
    jobs += ["simsiam_stream:0=from_one", "simsiam_stream:0=two/divided"]
    said = scale_runs.finish(scale_runs.start(jobs, folder, STEPS, 2, env))
    return folder, env, said


def difference(one, other):
    """Over all arrays of two states but those that nothing holds."""
    assert one.keys() == other.keys()
    held = [name for name in one if not scale_runs.is_free(name)]
    return runs.largest_difference({name: one[name] for name in held}, {name: other[name] for name in held})


def lines(workdir):
    return [json.loads(line) for line in runs.records(workdir)]


@pytest.mark.parametrize("name", COMPARED)
def test_two_processes_equal_one(setting, name):
    folder, _, _ = setting
    alone, two = folder / "alone" / name, folder / "two" / name
    assert difference(*(runs.every_array(each, 5) for each in (alone, two))) < 1e-5
    # The same numbers of the training and of every evaluator, once each.
    assert len(lines(alone)) == len(lines(two)) and [line["step"] for line in lines(two)][-1] == STEPS
    for one, other in zip(lines(alone), lines(two), strict=True):
        assert one.keys() == other.keys()
        for key in one.keys() - {"seconds"}:
            # A share may differ by the one image that lies on the edge.
            assert other[key] == pytest.approx(one[key], rel=0.02, abs=0.02), (one["step"], key)
    if name != "simsiam_stream":
        assert any(key.startswith("eval/") for key in lines(two)[-1])
    files = [
        sorted(
            str(file.relative_to(each))
            for file in each.rglob("*")
            # The pictures of the first batch are one process's alone: several see only their shares.
            if file.is_file() and "checkpoints" not in file.parts and not file.name.startswith(("batch_", "run.lock"))
        )
        for each in (alone, two)
    ]
    assert files[0] == files[1]


def test_the_first_process_alone_speaks(setting):
    folder, _, said = setting
    (printed, _), (silent, errors) = said
    assert "reached step 10 of 10" in printed + said[0][1]
    assert not [line for line in silent.splitlines() if not line.startswith("[Gloo]")] and not errors, said[1]
    assert (folder / "two" / "gan" / "report.html").is_file()


def test_a_run_goes_on_in_another_number_of_processes(setting):
    folder, env, _ = setting
    for place in ("simsiam_stream", "divided"):
        until_step_5(folder, f"two/{place}", f"from_two_{place}")
    jobs = ["simsiam_stream=from_two_simsiam_stream", "simsiam_stream=from_two_divided"]
    scale_runs.finish(scale_runs.start(jobs, folder, STEPS, 1, env))
    whole = runs.every_array(folder / "alone" / "simsiam_stream", STEPS)
    for place in ("from_one", "from_two_simsiam_stream", "from_two_divided"):
        assert difference(whole, runs.every_array(folder / place, STEPS)) < 1e-5, place
        assert [line["step"] for line in lines(folder / place)] == list(range(1, STEPS + 1))


@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_dies_ends_all_and_the_same_commands_go_on(setting, victim):
    folder, env, _ = setting
    place, steps = folder / f"killed_{victim}", 100_000
    both = scale_runs.start([f"simsiam_stream={place.name}"], folder, steps, 2, env)
    deadline = time.monotonic() + 120
    while len(lines(place)) < 12 and time.monotonic() < deadline and both[0].poll() is None:
        time.sleep(0.02)
    both[victim].send_signal(signal.SIGKILL)
    errors = both[1 - victim].communicate(timeout=100)[1]
    both[victim].communicate()
    told = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert both[1 - victim].returncode == 1 and len(told) == 1 and "Traceback" not in errors, errors
    assert errors.strip().splitlines() == told and "another process has ended" in told[0]
    saved = max(int(each.name) for each in (place / "checkpoints").iterdir() if each.name.isdecimal())
    last = lines(place)[-1]["step"]
    assert last - saved <= 5 + 3, "no more is lost than since the save before the last"
    # The same commands go on from the save.
    both = scale_runs.start([f"simsiam_stream={place.name}"], folder, steps, 2, env)
    deadline = time.monotonic() + 120
    while lines(place)[-1]["step"] <= last and time.monotonic() < deadline and both[0].poll() is None:
        time.sleep(0.02)
    for child in both:
        child.kill()
        child.communicate()
    assert [line["step"] for line in lines(place)] == list(range(1, lines(place)[-1]["step"] + 1))
    assert lines(place)[-1]["step"] > last


@pytest.mark.parametrize("asked", [0, 1])
def test_a_stop_signal_to_one_stops_both_at_one_step(setting, asked):
    folder, env, _ = setting
    place, file = folder / f"stopped_{asked}", folder / f"stopped_{asked}.json"
    config = scale_runs.config_of("simsiam_stream", folder / "data", folder / "alone" / "simsiam", 100_000)
    file.write_text(json.dumps(config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "experiments.train", f"--config={file}", f"--workdir={place}"]
    words += [f"--coordinator=127.0.0.1:{port}", "--processes=2"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [
        subprocess.Popen([*words, f"--process={process}"], env=env, cwd=runs.REPOSITORY, **pipes) for process in (0, 1)
    ]
    try:
        deadline = time.monotonic() + 120
        while len(lines(place)) < 12 and time.monotonic() < deadline and both[0].poll() is None:
            time.sleep(0.02)
        both[asked].send_signal(signal.SIGTERM)
        said = [child.communicate(timeout=100)[1] for child in both]
    finally:
        for child in both:
            child.kill()
            child.wait()
    step = lines(place)[-1]["step"]
    for child, errors in zip(both, said, strict=True):
        assert child.returncode == 1 and len(errors.splitlines()) == 1, said
        assert f"at step {step} of 100000" in errors, said
    assert (place / "checkpoints" / str(step)).is_dir(), "the step that both stopped at is saved"
    assert [line["step"] for line in lines(place)] == list(range(1, step + 1))


JOIN = """
import sys
import numpy as np
from experiments import command
from ssl_jax import mesh, types

def main(words):
    mesh.JOIN_SECONDS = 6
    mesh.join_processes(words[1], int(words[2]), int(words[3]))
    import jax
    mesh.any_process(True)
    print("joined", jax.process_index(), jax.process_count(), repr(mesh.hint_of_cluster()))
    with mesh.together():
        if words[4:] == ["alone"] and jax.process_index() == 1:
            mesh.MEET_SECONDS = 1
            raise types.RunError("the disk of process 1 is full")
        if words[4:] == ["alike"]:
            raise types.UsageError("there is no such thing")
        while words[4:]:
            mesh.any_process(False)

command.run(main, parse=lambda words: __import__("absl.flags").flags.FLAGS(words[:1]) and words)
"""


def joined(cases, **environment):
    """Runs `JOIN` at once in as many processes as cases; what each printed, said as an error, and its exit code."""
    children = [
        subprocess.Popen(
            [sys.executable, "-c", JOIN, *map(str, words)],
            env={**os.environ, "PYTHONPATH": str(runs.REPOSITORY), "JAX_NUM_CPU_DEVICES": "1", **environment, **own},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for words, own in cases
    ]
    ended = [child.communicate(timeout=120) for child in children]
    printed = [[line for line in out.splitlines() if not line.startswith("[Gloo]")] for out, _ in ended]
    return list(zip(printed, [error.splitlines() for _, error in ended], [c.returncode for c in children], strict=True))


def place():
    """A free address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def tasks(**of_a_task):
    return [(["", 0, -1], {name: str(values[task]) for name, values in of_a_task.items()}) for task in range(2)]


def test_tasks_of_slurm_find_each_other():
    job = place().rpartition(":")[2]
    common = {"SLURM_JOB_ID": job, "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}
    ended = joined(tasks(SLURM_PROCID=(0, 1), SLURM_LOCALID=(0, 1)), **common)
    assert ended == [([f"joined {task} 2 ''"], [], 0) for task in range(2)]


def test_what_keeps_processes_apart_is_said_in_one_line():
    here, there, twice, more = place(), place(), place(), place()
    cases = {
        "never comes": ([here, 2, 0], "did not come together at .*: not all came within 6 seconds; start every one"),
        "wrong coordinator": ([there, 2, 1], "not all came within 6 seconds"),
        "no port": (["node", 2, 1], "--coordinator=node is no HOST:PORT, such as node1:1234"),
        "no cluster": (
            ["", 0, -1],
            "JAX finds no cluster here; give --coordinator=HOST:PORT --processes=N --process=I",
        ),
        "of three": ([more, 3, 1], "came together, but were given --processes=2, 3: give all of them the same"),
        "of two": ([more, 2, 0], "came together, but were given --processes=2, 3: give all of them the same"),
        "fifth of two": ([twice, 2, 5], "process_id < num_processes"),
    }
    ended = joined([(words, {}) for words, _ in cases.values()])
    for (name, (_, expected)), (printed, errors, code) in zip(cases.items(), ended, strict=True):
        assert code == 2 and not printed and len(errors) == 1 and errors[0].startswith("error: "), (name, errors)
        assert re.search(expected, errors[0]), (name, errors)


def test_a_failure_of_one_is_the_end_of_all():
    first, second = place(), place()
    cases = [([first, 2, task, "alone"], {}) for task in range(2)] + [
        ([second, 2, task, "alike"], {}) for task in range(2)
    ]
    lost, broken, *alike = joined(cases)
    assert broken[1:] == (["error: the disk of process 1 is full"], 1)
    assert lost[2] == 1 and len(lost[1]) == 1 and "error: another process has ended" in lost[1][0], lost
    for _, errors, code in alike:
        assert (errors, code) == (["error: there is no such thing"], 2)
