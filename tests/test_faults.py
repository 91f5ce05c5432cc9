"""The trials of `experiments.faults`, a few of each sort, and that they see what is wrong."""

import json
import random
import shutil
import subprocess
import sys

import pytest

from experiments import fault_runs, fault_trials, faults
from ssl_jax import checkpoint
from tests import runs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("faults")


@pytest.mark.parametrize("name", ["stop_evaluating", "kill_evaluating", "start_twice", "damaged_checkpoint"])
def test_a_run_ends_as_if_nothing_had_befallen_it(folder, name, capsys):
    (outcome,) = faults.tried(name, 1, 0, folder)
    assert outcome.faults == ()
    assert outcome.happened != "ended before it"
    assert not (folder / f"{name}_0_0").exists(), "what passed is removed"
    assert f"{name} 1/1: {outcome.happened}" in capsys.readouterr().out


@pytest.fixture
def pair(folder, tmp_path):
    """The unbroken run and a copy of it."""
    whole = fault_runs.Setting(folder, random.Random(0)).unbroken()
    shutil.copytree(whole, tmp_path / "copy")
    return whole, tmp_path / "copy"


def test_a_copy_does_not_differ(pair):
    assert fault_runs.differences(*pair) == []
    assert fault_runs.logged(pair[1]) == fault_runs.STEPS
    assert fault_runs.kept(pair[1])[-1] == fault_runs.STEPS and not fault_runs.being_saved(pair[1])


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda lines: lines[:-2] + lines[-1:], "logged steps are"),
        (lambda lines: [*lines, lines[-1]], "logged steps are"),
        (lambda lines: [line.replace('"train/loss": -', '"train/loss": -1') for line in lines], "logged values differ"),
        (lambda lines: [lines[0].replace('"seconds": ', '"seconds": 9'), *lines[1:]], "seconds run backwards"),
    ],
)
def test_a_log_that_differs_is_seen(pair, harm, words):
    file = pair[1] / "metrics.jsonl"
    file.write_text("\n".join(harm(file.read_text().splitlines())) + "\n")
    (fault,) = fault_runs.differences(*pair)
    assert fault.startswith(words)


def test_another_best_and_other_parameters_are_seen(pair):
    whole, run = pair
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps(summary | {"best_step": 1, "finished": False}))
    newest = run / "checkpoints" / str(fault_runs.STEPS)
    params, _, _ = checkpoint.restore_networks(run, None)
    assert params
    shutil.rmtree(newest)
    found = " ".join(fault_runs.differences(whole, run))
    for words in ("other networks or another last step", "best_step in summary", "finished in summary"):
        assert words in found


def test_an_end_that_is_not_one_line_is_seen():
    good = "error: the disk is full: free some"
    assert fault_runs.ended_well(1, good, (1,), "disk is full") == []
    assert fault_runs.ended_well(0, good, (1,)) == ["exit code 0"]
    assert fault_runs.ended_well(1, "Traceback (most recent\n" + good, (1,)) == ["a traceback"]
    assert fault_runs.ended_well(2, good + "\n" + good, (1, 2)) == ["2 lines of error"]
    assert fault_runs.ended_well(1, good, (1,), "wandb sync") == [f"no 'wandb sync' in: {good}"]


def test_files_are_harmed_in_each_way(tmp_path):
    draw, content = random.Random(0), bytes(range(200))
    for _ in range(20):
        file = tmp_path / "file"
        file.write_bytes(content)
        harm = fault_trials.harm_file(file, draw)
        left = file.read_bytes() if file.exists() else None
        if harm == "flipped":
            assert sum((a ^ b).bit_count() for a, b in zip(left, content, strict=True)) == 1
        else:
            assert left is None if harm == "deleted" else content.startswith(left) and left != content


def test_the_table_counts_what_happened():
    found = {
        "kill": [
            fault_runs.Outcome("hit", 3),
            fault_runs.Outcome("hit", 5, seconds=2.25),
            fault_runs.Outcome("missed"),
        ],
        "disk": [fault_runs.Outcome("full", faults=("a traceback",))],
    }
    head, rule, *rows = faults.table(found).splitlines()
    assert head.count("|") == rule.count("|") == 7
    assert rows == [
        "| kill | 3 | hit (2); missed (1) | 5 | 2.2 | 3 of 3 |",
        "| disk | 1 | full (1) | - | - | 0 of 1 |",
    ]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--only=kill_saving",), "needs --out=FOLDER"),
        (("--out=new", "--only=kill_savin"), "--only takes kill_training, kill_saving"),
        (("--out=.",), "is not empty and holds no trials"),
    ],
)
def test_what_cannot_be_tried(tmp_path, words, says):
    (tmp_path / "thesis.txt").write_text("precious")
    done = subprocess.run(
        [sys.executable, "-m", "experiments.faults", *words],
        env=runs.environment(tmp_path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and says in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
