import dataclasses
import json
import types as python_types

import numpy as np
import pytest
from sklearn import metrics as reference

from ssl_jax import types
from ssl_jax.evaluators import classification

STATE = python_types.SimpleNamespace(step=1)
NAMES = ("cat", "dog", "bird")


@dataclasses.dataclass(frozen=True)
class Shelf:
    """Examples in memory whose pictures are their numbers, the last batch ragged and its padding poisonous."""

    targets: np.ndarray
    class_names: tuple[str, ...]
    batch_size: int = 16

    @property
    def examples(self):
        return len(self.targets)

    def labels(self):
        return np.asarray(self.targets, np.int32)

    def batches(self):
        for first in range(0, self.examples, self.batch_size):
            numbers = np.arange(first, first + self.batch_size)
            mask = numbers < self.examples
            image = np.where(mask, numbers, 255).astype(np.uint8).reshape(-1, 1, 1, 1)
            label = np.pad(self.labels()[first : first + self.batch_size], (0, np.count_nonzero(~mask)))
            yield {"image": image, "label": label.astype(np.int32), "mask": mask}


def report(logits, labels, names, **settings):
    """What the evaluator says of a network that gives `logits` [n, k]."""
    poison = np.full((256 - len(logits), *logits.shape[1:]), np.nan)
    table = np.concatenate([logits, poison]).astype(np.float32)

    def answer(state, images, preprocess):
        assert state is STATE
        return table[preprocess(images)]

    evaluator = classification.Classification(Shelf(np.asarray(labels), names), lambda x: x.reshape(-1), **settings)
    return evaluator({"logits": answer, "other": answer}, STATE, lambda: STATE)


def task(count=37, classes=8, strength=2.0, seed=0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count)
    logits = random.normal(size=(count, classes)) + strength * np.eye(classes)[labels]
    return logits.astype(np.float32), labels, tuple(f"class {label}" for label in range(classes))


def test_numbers_are_those_of_exactly_the_unpadded_examples():
    logits, labels, names = task()
    found = report(logits, labels, names)
    predictions = logits.argmax(axis=1)
    probabilities = np.exp(logits.astype(float))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    everyone = {"labels": range(8)}
    expected = {
        "accuracy": np.mean(predictions == labels),
        "accuracy_top5": reference.top_k_accuracy_score(labels, logits, k=5, **everyone),
        "macro_f1": reference.f1_score(labels, predictions, average="macro", zero_division=0, **everyone),
        "loss": reference.log_loss(labels, probabilities, **everyone),
    }
    calibration_error = found.scalars["calibration_error"]
    assert {**expected, "calibration_error": calibration_error} == pytest.approx(dict(found.scalars), rel=1e-6)
    assert 0.3 < expected["accuracy"] < expected["accuracy_top5"] < 1
    assert not found.alarms
    entry = found.summary["test"]
    assert {name: entry[name] for name in found.scalars} == dict(found.scalars)
    assert entry["examples"] == 37 and entry["level"] == 0.95
    for name in ("accuracy", "macro_f1"):
        low, high = entry[f"{name}_interval"]
        assert low < entry[name] < high
    precision, recall, f1, support = reference.precision_recall_fscore_support(
        labels, predictions, zero_division=0, **everyone
    )
    assert list(entry["classes"]) == list(names)
    for place, scored in enumerate(entry["classes"].values()):
        assert scored == pytest.approx(
            {"precision": precision[place], "recall": recall[place], "f1": f1[place], "support": support[place]}
        )
    confusion = reference.confusion_matrix(labels, predictions, **everyone)
    assert entry["confusion"] == confusion.tolist()
    np.testing.assert_array_equal(found.arrays["confusion"], confusion)
    assert found.arrays["confusion"].dtype == np.int64
    assert tuple(found.arrays["confusion_classes"]) == names
    assert json.loads(json.dumps(found.summary)) == found.summary


def test_settings_reach_the_numbers():
    logits, labels, names = task()
    plain = report(logits, labels, names).summary["test"]
    changed = report(logits, labels, names, export="other", name="val", bins=1, level=0.5, seed=3).summary["val"]
    assert changed["level"] == 0.5
    assert changed["calibration_error"] < plain["calibration_error"]
    (low, high), (inner_low, inner_high) = plain["accuracy_interval"], changed["accuracy_interval"]
    assert low < inner_low < inner_high < high
    for other in ({"resamples": 3}, {"seed": 4}):
        interval = report(logits, labels, names, **other).summary["test"]["macro_f1_interval"]
        assert interval != plain["macro_f1_interval"]


def test_a_perfect_and_a_constant_classifier():
    labels = np.array([0, 1, 2, 0, 1, 0])
    perfect = report(50.0 * np.eye(3)[labels], labels, NAMES)
    assert perfect.scalars == {"accuracy": 1.0, "macro_f1": 1.0, "calibration_error": 0.0, "loss": 0.0}
    assert perfect.summary["test"]["accuracy_interval"] == perfect.summary["test"]["macro_f1_interval"] == [1.0, 1.0]
    constant = report(np.tile([1.0, 0.0, 0.0], (6, 1)), labels, NAMES)
    assert constant.scalars["accuracy"] == 0.5
    assert constant.scalars["macro_f1"] == pytest.approx(2 * 3 / (3 + 6) / 3)
    confidence = np.e / (np.e + 2)
    assert constant.scalars["calibration_error"] == pytest.approx(confidence - 0.5, rel=1e-5)
    assert constant.scalars["loss"] == pytest.approx(-np.log(confidence) + 0.5, rel=1e-5)
    assert constant.summary["test"]["classes"]["dog"] == {"precision": 0, "recall": 0, "f1": 0, "support": 2}


def test_a_classifier_that_guesses():
    logits, labels, names = task(count=250, classes=4, strength=0.0)
    found = report(logits, labels, names)
    entry = found.summary["test"]
    low, high = entry["accuracy_interval"]
    assert low < 0.25 < high
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.25 * 0.75 / 250), rel=0.2)
    assert "accuracy_top5" not in found.scalars and "accuracy_top5" not in entry


@pytest.mark.parametrize("classes", [1, 2, 6])
def test_one_image_and_absent_classes_are_scored(classes):
    logits = np.zeros((1, classes))
    logits[0, -1] = 1.0
    found = report(logits, [classes - 1], tuple(f"class {label}" for label in range(classes)))
    assert found.scalars["accuracy"] == 1.0
    assert found.scalars["macro_f1"] == pytest.approx(1 / classes)
    assert found.summary["test"]["macro_f1_interval"] == pytest.approx([1 / classes, 1 / classes])
    assert all(np.isfinite(value) for value in found.scalars.values())
    json.dumps(found.summary, allow_nan=False)


def test_two_classes_of_one_name_stay_two():
    found = report(np.eye(3), [0, 1, 2], ("crane", "dog", "crane"))
    assert list(found.summary["test"]["classes"]) == ["crane (class 0)", "dog", "crane (class 2)"]
    assert found.arrays["confusion_classes"][2] == "crane (class 2)"


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_an_alarm_and_no_numbers(bad):
    logits, labels, names = task()
    logits[[3, 20], 5] = bad
    found = report(logits, labels, names)
    assert not found.scalars and not found.arrays and not found.images
    assert found.summary == {"test": {"examples": 37, "not_finite": 2}}
    assert len(found.alarms) == 1
    assert "not finite for 2 of 37 images" in found.alarms[0]


def test_logits_for_other_classes_are_refused_by_both_numbers():
    with pytest.raises(types.UsageError, match="export 'logits' gives 10 an image, but the set has 3 classes"):
        report(np.zeros((5, 10)), np.zeros(5, int), NAMES)
    with pytest.raises(types.UsageError, match="gives 2 x 3 an image, but the set has 3 classes"):
        report(np.zeros((5, 2, 3)), np.zeros(5, int), NAMES)
    with pytest.raises(types.UsageError, match="gives a single number an image"):
        report(np.zeros(5), np.zeros(5, int), NAMES)
    with pytest.raises(types.UsageError, match="no export 'logit' in this method, which has logits, other"):
        report(np.zeros((5, 3)), np.zeros(5, int), NAMES, export="logit")


@pytest.mark.parametrize(
    ("labels", "names", "settings", "message"),
    [
        ([0, 1], (), {}, "its set has no labels"),
        ([0, -1, -1], NAMES, {}, "2 images of its set have no label"),
        ([0, 3], NAMES, {}, r"a label of its set is 3, but the set has 3 class names"),
        ([0, 1], NAMES, {"name": ""}, "name is empty"),
        ([0, 1], NAMES, {"bins": 0}, "bins=0"),
        ([0, 1], NAMES, {"resamples": 0}, "resamples=0"),
        ([0, 1], NAMES, {"level": 1.0}, r"level=1\.0"),
        ([0, 1], NAMES, {"level": 95}, "level=95"),
        ([0, 1], NAMES, {"seed": -1}, "seed=-1"),
    ],
)
def test_what_cannot_be_is_refused_at_once(labels, names, settings, message):
    with pytest.raises(types.UsageError, match=message):
        classification.Classification(Shelf(np.array(labels), names), lambda x: x, **settings)


def picture(confusion):
    """What the evaluator draws for a confusion matrix."""
    confusion = np.array(confusion)
    labels, predictions = (places.repeat(confusion.ravel()) for places in np.indices(confusion.shape).reshape(2, -1))
    names = tuple(f"class {label}" for label in range(len(confusion)))
    return report(np.eye(len(confusion))[predictions], labels, names).images["confusion"]


def test_the_picture_has_a_row_for_each_true_class_and_the_counts_in_it():
    drawn = picture([[8, 0], [3, 1]])
    assert drawn.dtype == np.uint8 and drawn.shape == (292, 292, 3)
    # Three cells of 96 pixels and their lines; the first row and column are margins with the numbers of the classes.
    cells = drawn[:291, :291].reshape(3, 97, 3, 97, 3).transpose(0, 2, 1, 3, 4)[:, :, 1:, 1:]
    shades = cells[..., 5, 5, 0].astype(int)
    assert (shades[0] == 255).all() and (shades[:, 0] == 255).all()
    assert shades[1, 1] < shades[2, 1] < shades[2, 2] < shades[1, 2]
    inked = (cells != cells[:, :, 5:6, 5:6]).any(axis=-1)
    three_by_hand = np.array([[1, 1, 1], [0, 0, 1], [1, 1, 1], [0, 0, 1], [1, 1, 1]], bool)
    found = inked[2, 1]
    found = found[found.any(axis=1)][:, found.any(axis=0)][::3, ::3]
    np.testing.assert_array_equal(found, three_by_hand)
    assert not inked[0, 0].any() and not inked[1, 2].any()  # the corner, and a count of 0
    assert inked[0, 1].any() and inked[2, 0].any()


def test_two_digits_stand_side_by_side():
    drawn = picture([[12, 0], [0, 1]])
    cell = drawn[98 : 98 + 96, 98 : 98 + 96]
    inked = (cell != cell[5, 5]).any(axis=-1)
    found = inked[inked.any(axis=1)]
    found = found[:, np.flatnonzero(found.any(axis=0))[0] :][::3, : 3 * 7 : 3]
    by_hand = (" #  ###", "##    #", " #  ###", " #  #  ", "### ###")
    assert tuple("".join(" #"[pixel] for pixel in row) for row in found.astype(int)) == by_hand


@pytest.mark.parametrize("classes", [30, 31, 120])
def test_many_classes_are_drawn_without_counts(classes):
    drawn = picture(2 * np.eye(classes, dtype=int))
    assert drawn.dtype == np.uint8 and drawn.ndim == 3
    assert 500 < drawn.shape[0] == drawn.shape[1] < 1400
    # Pale cells, dark cells and lines; ink and margins only where there are counts.
    colours = len(np.unique(drawn.reshape(-1, 3), axis=0))
    assert colours == {30: 5, 31: 3, 120: 2}[classes]
