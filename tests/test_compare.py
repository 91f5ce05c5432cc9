"""`experiments.compare` from end to end, on run folders written as files."""

import json
import subprocess
import sys

import pytest

from tests import run_folders
from tests.runs import REPOSITORY

pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install matplotlib to run these tests")


def compare(*words, code=0):
    command = [sys.executable, "-m", "experiments.compare", *map(str, words)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def test_two_runs_become_a_page_tables_and_figures(tmp_path):
    one, other = run_folders.two(tmp_path)
    out = tmp_path / "out"
    # Flags may stand anywhere.
    done = compare(one, f"--out={out}", other)
    assert "eval/knn/accuracy, best" in done.stdout and "config.method.optimizer.base_learning_rate" in done.stdout
    assert "in progress or stopped at step 20 of 40" in done.stdout
    record = json.loads((out / "comparison.json").read_text())
    assert record["finished"] and record["runs"] == [str(one), str(other)]
    there = {str(file.relative_to(out)) for file in out.rglob("*") if file.is_file()}
    assert there == {"comparison.json", *record["files"]}
    assert {"index.html", "comparison.csv", "comparison.tex", "figures/train_loss-steps.png"} <= there and len(
        there
    ) == 13
    # Another call replaces its own files, and leaves none of the earlier ones behind.
    begun = [
        run_folders.write(tmp_path / name, config=run_folders.config(seed=place)) for place, name in enumerate("ab")
    ]
    compare(*begun, f"--out={out}")
    assert not list(out.rglob("*.png")) and "config.<wbr>seed" in (out / "index.html").read_text()
    # Nothing was written into the runs.
    assert sorted(file.name for file in one.iterdir()) == ["config.json", "metrics.jsonl", "summary.json"]


def test_what_is_refused_in_one_line(tmp_path):
    one, other = run_folders.two(tmp_path)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "letter.txt").write_text("dear")

    def refused(*words, code=2):
        done = compare(*words, code=code)
        (line,) = done.stderr.strip().splitlines()
        assert line.startswith("error: ") and done.stdout == ""
        return line

    out = tmp_path / "out"
    assert "two run folders or more" in refused(one, f"--out={out}")
    assert "--out" in refused(one, other)
    assert "foreign is not empty" in refused(one, other, f"--out={foreign}")
    (other / "metrics.jsonl").write_text("nonsense\n")
    assert "line 1" in refused(one, other, f"--out={out}", code=1)
    assert not out.exists() and (foreign / "letter.txt").read_text() == "dear"
