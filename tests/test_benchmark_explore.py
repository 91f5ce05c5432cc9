"""`experiments.benchmark_explore` at a tiny size: a line for each analysis, both sides in processes of their own."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]


def script(folder, *arguments):
    command = [sys.executable, "-m", "experiments.benchmark_explore", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=300)


def test_both_sides_give_time_memory_and_the_same_result(tmp_path):
    random = np.random.default_rng(0)
    np.save(tmp_path / "features.npy", random.standard_normal((300, 12), np.float32))
    done = script(tmp_path, "--features=features.npy", "--out=out.json", "--parts=pca,kmeans_same_start")
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["analyses"] == lines and written["platform"]
    assert [line["analysis"] for line in lines] == ["pca", "kmeans_same_start"]
    for line in lines:
        for side in ("ours", "sklearn"):
            assert line[side]["rows_and_width"] == [300, 12]
            assert line[side]["seconds"] > 0 and line[side]["first_seconds"] > 0
            assert 50 < line[side]["before_mb"] <= line[side]["peak_mb"] < 2000
        # The other side's library is not in memory.
        assert line["sklearn"]["before_mb"] < line["ours"]["before_mb"]
    principal, clusters = lines
    assert principal["largest_difference"] < 1e-5 < principal["largest_result"]
    assert clusters["result"]["inertia"] == pytest.approx(clusters["sklearn_result"]["inertia"], rel=1e-4)


def test_an_unknown_analysis_and_a_missing_file_are_refused_in_words(tmp_path):
    for arguments, words in [
        (("--parts=umap",), "--parts=umap: no such analysis; there are pca,"),
        (("--features=none.npy",), "no file none.npy"),
    ]:
        done = script(tmp_path, *arguments)
        assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1
