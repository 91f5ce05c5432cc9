"""What several run folders say side by side, held against folders whose every number is known."""

import itertools
import json

import numpy as np
import pytest

from ssl_jax import comparison, types
from ssl_jax.writers import files
from tests import run_folders


@pytest.fixture
def compared(tmp_path):
    return comparison.read(run_folders.two(tmp_path))


def number(compared, name, kind):
    return next(each for each in compared.numbers if (each.name, each.kind) == (name, kind))


def test_every_number_of_two_runs(compared):
    names = [(each.name, each.kind) for each in compared.numbers]
    assert names == [
        ("train/loss", "last"),
        *itertools.product(("eval/knn/accuracy", "eval/knn/error"), ("last", "best")),
    ]
    assert number(compared, "eval/knn/accuracy", "last").values == (0.9, 0.6)
    best = number(compared, "eval/knn/accuracy", "best")
    assert (best.values, best.steps, best.direction, best.winners) == ((0.9, 0.7), (20, 10), "largest", {0})
    error = number(compared, "eval/knn/error", "best")
    assert error.direction == "smallest" and error.winners == {0}
    loss = number(compared, "train/loss", "last")
    assert loss.values == (-0.2, -0.2) and loss.direction is None and loss.winners == set()


def test_curves_over_steps_epochs_and_seconds(compared):
    curve = compared.runs[1].curves["eval/knn/accuracy"]
    np.testing.assert_array_equal(curve.steps, [10, 20])
    np.testing.assert_array_equal(curve.epochs, [1, 2])
    np.testing.assert_array_equal(curve.seconds, [40, 80])
    np.testing.assert_array_equal(curve.values, [0.7, 0.6])
    assert set(compared.runs[1].curves) == {"train/loss", "eval/knn/accuracy", "eval/knn/error"}


def test_facts(compared):
    finished, killed = (run.facts for run in compared.runs)
    assert finished == {
        "method": "SimSiam",
        "data": "digits",
        "state": "finished",
        "steps": "20",
        "epochs": "2",
        "wall time": "44 s",
        "device": "2 \u00d7 TPU v4",
        "commit": "0123456789ab-dirty",
        "seed": "7",
        "alarms": "0",
    }
    assert killed["state"] == "in progress or stopped at step 20 of 40"
    # The metrics know of more than the last summary.
    assert compared.runs[1].seconds == 80.0 and killed["wall time"] == "1 min 20 s"


def test_what_differs_and_nothing_else(compared):
    assert compared.differences == {
        "config.seed": ("7", "0"),
        "config.method.optimizer.base_learning_rate": ("0.5", "1.0"),
        "config.method.optimizer.constant_rate": ('["predictor"]', "absent"),
        "config.method.note": ("absent", '"50% of <b>_x_</b>"'),
    }


@pytest.mark.parametrize(
    ("first", "second", "differs"),
    [
        ({"a": 1}, {"a": 1.0}, {}),
        ({"a": [1, 2.0]}, {"a": [1.0, 2]}, {}),
        ({"a": 1}, {"a": True}, {"config.a": ("1", "true")}),
        ({"a": None}, {}, {"config.a": ("null", "absent")}),
        ({"a": "absent"}, {}, {"config.a": ('"absent"', "absent")}),
        ({"a": {}}, {"a": {}}, {}),
        ({"a": None}, {"a": {"b": 3}}, {"config.a": ("null", "absent"), "config.a.b": ("absent", "3")}),
        ({"a": [1, 2]}, {"a": [2, 1]}, {"config.a": ("[1, 2]", "[2, 1]")}),
    ],
)
def test_differences_of_leaves(first, second, differs):
    assert comparison.differences([first, second]) == differs


def test_a_leaf_that_one_of_three_has_otherwise():
    assert comparison.differences([{"a": 1, "b": 2}, {"a": 1, "b": 2}, {"a": 1, "b": 3}]) == {
        "config.b": ("2", "2", "3")
    }


def test_folders_of_one_name_get_labels_of_their_own(tmp_path):
    paths = [tmp_path / end for end in ("x/digits/run", "y/digits/run", "other", "z/run")]
    assert comparison.labels(paths) == ["x/digits/run", "y/digits/run", "other", "z/run"]
    assert comparison.labels([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]


def test_directions_are_those_of_the_summary(tmp_path):
    """Two values for each name, rising: the writer's best one is the second for the largest, else the first."""
    names = [
        "eval/knn/accuracy",
        "eval/a/error_ab",
        "eval/d/fid",
        "eval/c/healthy",
        "eval/p/labels_1_std/x",
        "train/loss",
    ]
    writer = files.Files().start(types.Run(tmp_path, {"seed": 0}, 0, 2, 1, 1))
    for step in (1, 2):
        writer.scalars(step, {"epoch": step, "images": step, "seconds": 0.0, **dict.fromkeys(names, float(step))})
    writer.close()
    best = json.loads((tmp_path / "summary.json").read_text())["best"]
    told = {name: {1.0: "smallest", 2.0: "largest"}[best[name]["value"]] if name in best else None for name in names}
    assert {name: comparison.direction(name) for name in names} == told
    assert list(told.values()) == ["largest", "smallest", "smallest", None, None, None]


def test_the_best_runs_of_a_number():
    def winners(values, direction):
        return comparison.Number("eval/x", "last", values, (None,) * len(values), direction).winners

    assert winners((0.5, 0.9, None, 0.9), "largest") == {1, 3}
    assert winners((0.5, 0.9, 0.4), "smallest") == {2}
    assert winners((0.5, 0.9), None) == winners((0.5, 0.5), "largest") == winners((None, 0.5), "largest") == set()


def test_a_best_value_is_told_only_where_some_run_did_not_end_with_it(tmp_path):
    def run(name, values):
        told = run_folders.summary(values, total_steps=20)
        return run_folders.write(
            tmp_path / name, config=run_folders.config(), lines=run_folders.lines(values), summary=told
        )

    rising = [run("a", [0.1, 0.2]), run("b", [0.3, 0.4])]
    kinds = {(number.name, number.kind) for number in comparison.read(rising).numbers}
    assert ("eval/knn/accuracy", "last") in kinds and ("eval/knn/accuracy", "best") not in kinds
    best = number(comparison.read([*rising, run("c", [0.5, 0.2])]), "eval/knn/accuracy", "best")
    assert best.values == (0.2, 0.4, 0.5) and best.steps == (20, 20, 10)


def test_runs_that_wrote_little(tmp_path):
    whole, _ = run_folders.two(tmp_path)
    begun = run_folders.write(tmp_path / "begun", config=run_folders.config())
    lost = run_folders.write(tmp_path / "lost", config=run_folders.config(), lines=run_folders.lines([0.3]))
    # As self-training leaves its folder: all is in the summary.
    told = run_folders.write(
        tmp_path / "told", config=run_folders.config(), summary=run_folders.summary([0.4, 0.2], total_steps=20)
    )
    compared = comparison.read([whole, begun, lost, told])
    states = [run.facts["state"] for run in compared.runs]
    assert states[0] == states[3] == "finished"
    assert states[1].startswith("no numbers") and states[2] == "in progress or stopped at step 10"
    assert number(compared, "eval/knn/accuracy", "last").values == (0.9, None, 0.3, 0.2)
    assert number(compared, "eval/knn/accuracy", "best").values == (0.9, None, None, 0.4)
    assert compared.runs[2].facts["epochs"] == "1" and compared.runs[1].facts["wall time"] == "unknown"
    assert compared.runs[1].facts["commit"] == "unknown"


def test_values_that_are_not_finite_are_no_points(tmp_path):
    one, other = run_folders.two(tmp_path)
    bad = run_folders.lines([0.5, 0.6])
    bad[0]["train/loss"] = None
    (one / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in bad))
    np.testing.assert_allclose(comparison.read([one, other]).runs[0].curves["train/loss"].values, [-0.2])


def test_a_long_curve_is_smoothed():
    ramp = np.arange(4000.0)
    noise = np.where(ramp % 2, 1.0, -1.0)
    smooth = comparison.smoothed(comparison.Curve(ramp, ramp / 10, ramp * 2, 3 * ramp + noise))
    assert len(smooth.values) == 400
    # Each window holds as many of the one sign as of the other; the first one is of 0, ..., 99.
    np.testing.assert_allclose(smooth.values, 3 * smooth.steps)
    np.testing.assert_allclose(smooth.seconds, 2 * smooth.steps)
    np.testing.assert_allclose([smooth.steps[0], smooth.steps[-1]], [49.5, 3949.5])
    short = comparison.Curve(*[ramp[:119]] * 4)
    assert comparison.smoothed(short) is short


def test_what_is_refused(tmp_path):
    one, other = run_folders.two(tmp_path)

    def refused(folders, error, *words):
        with pytest.raises(error) as caught:
            comparison.read(folders)
        assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value)

    refused([], types.UsageError, "at least 2")
    refused([one], types.UsageError, "1 run", "at least 2")
    refused([one, other, one / ".." / "first"], types.UsageError, "twice")
    refused([one, tmp_path], types.UsageError, "no run folder", "config.json")
    refused([one, tmp_path / "nowhere"], types.UsageError, "no run folder", "no such folder")
    (other / "summary.json").write_text("{")
    refused([one, other], types.RunError, "summary.json", "damaged")
    (other / "summary.json").write_text("[]")
    refused([one, other], types.RunError, "summary.json", "no JSON object")
    (other / "summary.json").write_text('{"best": {"eval/x": 3}}')
    refused([one, other], types.RunError, "second", "damaged")
    (other / "summary.json").unlink()
    (other / "metrics.jsonl").write_bytes(b'{"step": 1}\nnonsense\n{"step": 3}\n')
    refused([one, other], types.RunError, "metrics.jsonl", "line 2")
    (other / "metrics.jsonl").write_bytes(b'\xff\xfe{"step": 1}\n')
    refused([one, other], types.RunError, "second", "damaged")
