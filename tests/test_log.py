"""What loop, writers and report share does what it says."""

import json
import pkgutil
import subprocess
import sys

import numpy as np
import pytest

from ssl_jax import log, types, writers


@pytest.fixture
def metrics(tmp_path):
    """`metrics.jsonl` with steps 10, 20 and 30, and a fourth line that a kill cut off."""
    lines = [json.dumps({"step": step, "seconds": step * 0.5, "eval/a": None}) + "\n" for step in (10, 20, 30)]
    (tmp_path / "metrics.jsonl").write_text("".join(lines) + '{"step": 40, "epo')
    return tmp_path


def test_a_line_cut_off_by_a_kill_is_left_out(metrics):
    assert [line["step"] for line in log.read_metrics(metrics)] == [10, 20, 30]
    assert log.read_metrics(metrics / "nowhere") == []


def test_a_start_keeps_the_lines_and_the_time_up_to_its_first_step(metrics):
    assert [line["step"] for line in log.kept_metrics(metrics, 25)] == [10, 20]
    assert log.kept_metrics(metrics, 0) == []
    assert [log.seconds_so_far(metrics, step) for step in (0, 5, 20, 29, 30)] == [0.0, 0.0, 10.0, 10.0, 15.0]


@pytest.mark.parametrize("line", ["hello", "[1]", "{}", '{"step": 1'])
def test_a_line_that_is_none_of_ours_is_named(metrics, line):
    path = metrics / "metrics.jsonl"
    first, rest = path.read_text().split("\n", 1)
    path.write_text(f"{first}\n{line}\n{rest}")
    with pytest.raises(types.RunError, match=r"metrics\.jsonl line 2"):
        log.read_metrics(metrics)


class Recorder:
    def __init__(self, fails=()):
        self.calls, self.fails = [], fails

    def __getattr__(self, name):
        def call(*arguments):
            self.calls.append((name, *arguments))
            if name in self.fails:
                raise self.fails[name]

        return call


def test_combine_forwards_everything_and_names_the_writer_that_fails():
    class Broken(Recorder): ...

    fails = {"scalars": KeyError("x"), "alarm": types.RunError("cannot write it"), "close": OSError("gone")}
    first, broken, last = Recorder(), Broken(fails), Recorder()
    writer = log.combine([first, broken, last])
    told = [
        ("progress", 1),
        ("images", 1, {"a": 2}),
        ("arrays", 1, {"a": 2}),
        ("summary", {"a": 2}),
    ]
    for name, *arguments in told:
        getattr(writer, name)(*arguments)
    assert first.calls == last.calls == told
    with pytest.raises(types.RunError, match="Broken failed in scalars: KeyError"):
        writer.scalars(1, {})
    with pytest.raises(types.RunError, match="Broken: cannot write it"):
        writer.alarm(1, "a")
    with pytest.raises(types.RunError, match="Broken failed in close"):
        writer.close()
    assert last.calls[-1] == ("close",)


def test_format_table():
    summary = {
        "labels_10": {"simsiam": 0.9, "raw_pixels": 0.5},
        "labels_1": {"simsiam": 0.8012, "untrained": 0.4, "raw_pixels": 0.25},
        "labels_1_std": {"simsiam": 0.0214},
        "labels_all": {"simsiam": 1.0},
        "knn": {"simsiam": 0.98},
        "other": 3,
    }
    assert log.format_table(summary).splitlines() == [
        "accuracy    1 label        10 labels  all labels  kNN",
        "-" * 55,
        "raw_pixels  0.250          0.500      -           -",
        "untrained   0.400          -          -           -",
        "simsiam     0.801 ± 0.021  0.900      1.000       0.980",
    ]
    assert log.format_table({"step": 1}) == ""
    assert "kNN (k=7)" in log.format_table({**summary, "knn_neighbours": 7}).splitlines()[0]


def test_an_accuracy_that_json_could_not_hold_is_absent():
    rows, columns = log.table(
        {"knn": {"b": None, "untrained": 0.5}, "labels_1": {"a": 0.25}, "labels_1_std": {"a": None}}
    )
    assert rows == ["untrained", "a"]
    assert [(column.head, column.accuracies, column.spreads) for column in columns] == [
        ("1 label", {"a": 0.25}, {}),
        ("kNN", {"untrained": 0.5}, {}),
    ]


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59.6, "1 min 00 s"), (125, "2 min 05 s"), (3600 * 27 + 61, "27 h 01 min")]
)
def test_durations_in_words(seconds, words):
    assert log.duration(seconds) == words


def test_what_is_replaced_stays_whole_where_the_new_cannot_be_written(tmp_path):
    path = tmp_path / "a.txt"
    log.replace(path, "old")
    reader = path.open()
    log.replace(path, "new")
    with reader:
        assert reader.read() == "old"
    with pytest.raises(TypeError):
        log.replace(path, {"bad": object(), 3: 1})
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(types.RunError, match=r"cannot write .*nowhere"):
        log.replace(tmp_path / "nowhere" / "a.txt", "new")


@pytest.mark.parametrize("content", ["new", b"new", {"new": np.zeros(1)}], ids=["text", "bytes", "arrays"])
def test_nothing_is_written_through_a_link_that_has_the_temporary_name(tmp_path, content):
    other = tmp_path / "other"
    other.write_text("untouched")
    (tmp_path / "a.tmp").symlink_to(other)
    log.replace(tmp_path / "a", content)
    assert other.read_text() == "untouched" and (tmp_path / "a").stat().st_size >= 3
    assert not (tmp_path / "a").is_symlink() and not (tmp_path / "a.tmp").is_symlink()


def test_commit_is_that_of_the_package_and_says_dirty(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    file = tmp_path / "package.py"
    assert log._commit(file) is None
    git("init")
    file.write_text("1")
    assert log._commit(file) is None  # it lies in a repository that does not know it
    git("add", ".")
    git("commit", "-m", "one")
    clean = log._commit(file)
    assert len(clean) == 40
    file.write_text("2")
    assert log._commit(file) == f"{clean}-dirty"


def test_importing_the_writers_imports_nothing_optional():
    names = ["ssl_jax.report", *(f"ssl_jax.writers.{module.name}" for module in pkgutil.iter_modules(writers.__path__))]
    assert len(names) == 5
    code = f"import sys, {', '.join(names)}; print({{'wandb', 'tqdm', 'matplotlib', 'PIL', 'cv2'}} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_scores_are_told_from_what_else_a_summary_holds():
    score = {
        "accuracy": 0.5,
        "accuracy_interval": [0.4, 0.6],
        "macro_f1": 0.45,
        "calibration_error": 0.1,
        "examples": 1200,
        "classes": {},
    }
    summary = {"test": score, "broken": {"examples": 3, "not_finite": 1}, "knn": {"simsiam": 0.9}, "step": 5}
    assert log.scores(summary) == {"test": score}
    assert log.format_scores(summary) == (
        "test: accuracy 0.500 (0.400 to 0.600), macro F1 0.450, calibration error 0.100, 1,200 images"
    )
    assert "top-5 0.900" in log.format_scores({"test": score | {"accuracy_top5": 0.9}})
    assert log.format_scores({}) == ""


def test_translations_whose_truth_is_known_are_told_for_each_direction():
    found = {"examples": 1000, "psnr_ab": 21.347, "psnr_ba": 9.0, "error_ab": 0.04123, "error_ba": 0.3}
    summary = {"digits": found, "broken": {"examples": 3, "not_finite": 1}, "step": 5}
    assert log.counterparts(summary) == {"digits": found}
    assert log.format_scores(summary) == (
        "digits, A to B: PSNR 21.35 dB, pixel error 0.0412, 1,000 pairs\n"
        "digits, B to A: PSNR 9.00 dB, pixel error 0.3000, 1,000 pairs"
    )
    read = log.format_scores({"digits": {**found, "read_ba": 0.91, "read_real_a": 0.98}})
    assert read.endswith("pixel error 0.3000, 0.910 read rightly (0.980 of real images), 1,000 pairs")
