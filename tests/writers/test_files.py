"""The run folder says what the run was told, in strict JSON, and a resume voids what it makes anew."""

import json
import math
import resource

import numpy as np
import pytest

from ssl_jax import types
from ssl_jax.writers import files


def read_strictly(path):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


@pytest.fixture
def write_a_run(make_run, counts):
    def write(steps):
        writer = files.Files().start(make_run())
        for step in steps:
            writer.progress(step)
            writer.scalars(step, {**counts(step), "eval/knn/accuracy": step / 100})
            writer.images(step, {"eval/knn/neighbours": np.full((4, 6, 3), step, np.uint8)})
            writer.arrays(step, {"eval/linear/map/raw": np.full((2, 2), step)})
            writer.alarm(step, f"alarm of {step}")
        writer.summary({"knn": {"simsiam": steps[-1] / 100}, "finished": True})
        writer.close()

    return write


def test_metrics_lines_are_strict_json_in_the_stated_order_and_on_disk_at_once(tmp_path, capsys, make_run, counts):
    writer = files.Files().start(make_run())
    for step in (1, 2):
        writer.scalars(
            step, {"eval/a/b": math.nan, "train/loss": np.float32(0.5), **counts(step), "eval/a/c": -math.inf}
        )
    lines = read_strictly(tmp_path / "metrics.jsonl")  # before close
    assert list(lines[0]) == ["step", "epoch", "images", "seconds", "eval/a/b", "train/loss", "eval/a/c"]
    assert lines[1] == {"step": 2, **counts(2), "eval/a/b": None, "train/loss": 0.5, "eval/a/c": None}
    said = capsys.readouterr().err
    assert said.count("eval/a/b is nan at step 1, written as null") == 1
    assert said.count("eval/a/b") == 1
    writer.close()


def test_summary_holds_last_best_environment_alarms_and_what_it_was_told(tmp_path, make_run, counts):
    writer = files.Files().start(make_run())
    for step, accuracy, error in ((10, 0.5, 0.3), (20, 0.9, 0.1), (30, 0.7, 0.2)):
        writer.progress(step)
        writer.scalars(step, {**counts(step), "eval/knn/accuracy": accuracy, "eval/knn/class_error": error})
        writer.scalars(step, {**counts(step), "train/loss": accuracy})
    writer.alarm(30, "it collapsed")
    reader = (tmp_path / "summary.json").open()
    writer.summary({"labels_1": {"simsiam": np.float32(0.5)}, "array": np.arange(2), "bad": math.inf})
    writer.summary({"labels_1": {"simsiam": 0.75}, "finished": True})
    writer.close()
    with reader:
        assert "array" not in json.load(reader)  # who was reading still has the whole old file
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["last"] == {"eval/knn/accuracy": 0.7, "eval/knn/class_error": 0.2, "train/loss": 0.7}
    assert summary["best"] == {
        "eval/knn/accuracy": {"value": 0.9, "step": 20},
        "eval/knn/class_error": {"value": 0.1, "step": 20},
    }
    assert summary["alarms"] == [{"step": 30, "sentence": "it collapsed"}]
    assert summary["labels_1"] == {"simsiam": 0.75}
    assert (summary["array"], summary["bad"], summary["finished"]) == ([0, 1], None, True)
    assert (summary["step"], summary["seed"], summary["platform"]) == (30, 3, "cpu")
    assert summary["versions"]["numpy"] == np.__version__


def test_best_is_the_larger_deviation_and_holds_neither_spreads_nor_levels(tmp_path, make_run, counts):
    writer = files.Files().start(make_run())
    for step, value in ((10, 0.05), (20, 0.08), (30, 0.02)):
        names = ("eval/collapse/deviation", "eval/collapse/healthy", "eval/probe/labels_1_std/simsiam")
        writer.scalars(step, {**counts(step), **dict.fromkeys(names, value)})
    writer.close()
    best = json.loads((tmp_path / "summary.json").read_text())["best"]
    assert best == {"eval/collapse/deviation": {"value": 0.08, "step": 20}}


def test_a_resume_voids_what_was_written_later_and_keeps_the_rest(tmp_path, make_run, counts, write_a_run):
    write_a_run((10, 20, 30))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40, "epo')  # a kill in mid-write
    writer = files.Files().start(make_run(first_step=20))
    assert [line["step"] for line in read_strictly(tmp_path / "metrics.jsonl")] == [10, 20]
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == [
        "eval_knn_neighbours-00000010.png",
        "eval_knn_neighbours-00000020.png",
    ]
    assert not (tmp_path / "arrays.npz").exists()  # it held step 30 alone
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["best"]["eval/knn/accuracy"] == {"value": 0.2, "step": 20}
    assert [alarm["step"] for alarm in summary["alarms"]] == [10, 20]
    assert "knn" not in summary
    assert summary["finished"] is False
    assert 10.0 <= summary["wall_seconds"] < 10.0 + 60
    writer.scalars(30, {**counts(30), "train/loss": 1.0})
    writer.close()
    assert [line["step"] for line in read_strictly(tmp_path / "metrics.jsonl")] == [10, 20, 30]


def test_a_resume_from_the_last_step_keeps_everything_but_that_it_was_finished(tmp_path, make_run, write_a_run):
    write_a_run((10, 20))
    files.Files().start(make_run(first_step=20)).close()
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["knn"], summary["step"], summary["finished"]) == ({"simsiam": 0.2}, 20, False)
    with np.load(tmp_path / "arrays.npz") as stored:
        np.testing.assert_array_equal(stored["eval/linear/map/raw"], np.full((2, 2), 20))


def test_a_start_at_step_zero_voids_everything(tmp_path, make_run, write_a_run):
    write_a_run((0, 10))
    files.Files().start(make_run()).close()
    assert (tmp_path / "metrics.jsonl").read_text() == ""
    assert list((tmp_path / "images").iterdir()) == []
    assert not (tmp_path / "arrays.npz").exists()
    assert "knn" not in json.loads((tmp_path / "summary.json").read_text())


def test_a_foreign_metrics_file_is_named(tmp_path, make_run):
    (tmp_path / "metrics.jsonl").write_text("hello\n")
    with pytest.raises(types.RunError, match=r"metrics\.jsonl line 1"):
        files.Files().start(make_run(first_step=5))


def test_a_full_disk_is_named_and_the_old_summary_survives(tmp_path, make_run, counts):
    writer = files.Files().start(make_run())
    before = (tmp_path / "summary.json").read_text()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))  # a write beyond 64 bytes fails as on a full disk
        with pytest.raises(types.RunError, match=r"cannot write .*summary\.json"):
            writer.summary({"a": 1})
        with pytest.raises(types.RunError, match=r"cannot write .*metrics\.jsonl"):
            writer.scalars(1, {**counts(1), "train/a_rather_long_name": 1.0})
        with pytest.raises(types.RunError, match=r"cannot write .*images"):
            writer.images(1, {"noise": np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "summary.json").read_text() == before
    assert not list(tmp_path.glob("*.tmp"))
    writer.close()


def test_png_is_read_back_by_another_library():
    cv2 = pytest.importorskip("cv2")
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    np.testing.assert_array_equal(
        cv2.imdecode(np.frombuffer(files.png(picture), np.uint8), cv2.IMREAD_COLOR_RGB), picture
    )
    with pytest.raises(ValueError, match="uint8"):
        files.png(picture.astype(np.float32))


def test_no_evaluator_takes_a_word_that_summary_json_uses_itself(make_run):
    writer = files.Files().start(make_run())
    with pytest.raises(types.UsageError, match="keeps best, last for itself"):
        writer.summary({"last": {}, "best": {}, "mine": 1})
    writer.close()
