import numpy as np
import pytest
from sklearn import metrics as reference

from ssl_jax import types
from ssl_jax.analysis import scores


def answers(count=400, classes=7, right=0.6, seed=0):
    """Labels and predictions of classes of unequal size, confused in no symmetric way."""
    random = np.random.default_rng(seed)
    labels = random.choice(classes, count, p=np.arange(1, classes + 1) / np.arange(1, classes + 1).sum())
    wrong = np.minimum(labels + random.integers(0, 3, count), classes - 1)
    return labels, np.where(random.random(count) < right, labels, wrong)


# With 12 classes the last 5 neither occur nor are predicted.
@pytest.mark.parametrize(("count", "classes"), [(400, 7), (400, 12), (5, 7), (1, 2)])
def test_confusion_and_scores_equal_scikit_learn(count, classes):
    labels, predictions = answers(count, classes=min(classes, 7))
    everyone = {"labels": range(classes)}
    confusion = scores.confusion(labels, predictions, classes)
    assert confusion.dtype == np.int64
    np.testing.assert_array_equal(confusion, reference.confusion_matrix(labels, predictions, **everyone))
    expected = reference.precision_recall_fscore_support(labels, predictions, zero_division=0, **everyone)
    found = scores.per_class(confusion)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
        assert ours.shape == (classes,)
    assert found.support.dtype == np.int64
    macro = reference.f1_score(labels, predictions, average="macro", zero_division=0, **everyone)
    assert scores.macro_f1(confusion) == pytest.approx(macro, rel=1e-12)


def test_a_class_that_occurs_nowhere_counts_as_nothing_and_lowers_the_mean():
    labels = np.array([0, 1, 0, 1])
    assert scores.macro_f1(scores.confusion(labels, labels, 2)) == 1.0
    assert scores.macro_f1(scores.confusion(labels, labels, 4)) == 0.5
    assert reference.f1_score(labels, labels, average="macro") == 1.0


@pytest.mark.parametrize(
    ("labels", "predictions"), [([0, 3], [0, 1]), ([0, 1], [-1, 1]), ([0, 1], [0]), ([[0]], [[0]])]
)
def test_answers_that_cannot_be_are_refused(labels, predictions):
    with pytest.raises(types.UsageError, match=r"outside 0\.\.2|not two lists"):
        scores.confusion(np.array(labels), np.array(predictions), 3)


def test_calibration_error_of_a_case_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.45, 0.55]])
    # Bins of a half: all four are in the upper; three right of four, mean confidence 0.7375.
    assert scores.calibration_error(probabilities, np.array([0, 0, 1, 0]), bins=2) == pytest.approx(0.75 - 0.7375)
    # Bins of a fifth: {0.9} right, {0.8, 0.7} one right, {0.55} wrong.
    expected = (abs(1 - 0.9) + abs(1 - 1.5) + abs(0 - 0.55)) / 4
    assert scores.calibration_error(probabilities, np.array([0, 0, 0, 0]), bins=5) == pytest.approx(expected)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_confidence_on_an_edge_belongs_to_the_lower_bin(kind):
    probabilities = np.array([[0.6, 0.4], [0.55, 0.45], [0.65, 0.35]], kind)
    # Of tenths: {0.55, 0.6} are the sixth, one right, and {0.65} the seventh, wrong. The other way it would be 0.4.
    error = scores.calibration_error(probabilities, np.array([1, 0, 1]), bins=10)
    assert error == pytest.approx((abs(1 - 1.15) + 0.65) / 3, rel=1e-6)


@pytest.mark.parametrize("bins", [1, 15])
def test_calibration_error_equals_a_loop_over_bins(bins):
    random = np.random.default_rng(1)
    probabilities = random.dirichlet([0.3] * 5, 500)
    labels = random.integers(0, 5, 500)
    confidences, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    expected = 0.0
    for lower, upper in zip(np.arange(bins) / bins, np.arange(1, bins + 1) / bins, strict=True):
        inside = (confidences > lower) & (confidences <= upper)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidences[inside].mean())
    assert scores.calibration_error(probabilities, labels, bins) == pytest.approx(expected, rel=1e-9)
    assert expected > 0.1


def test_calibration_error_of_the_sure_and_right_is_none():
    assert scores.calibration_error(np.eye(3), np.arange(3)) == 0.0
    assert scores.calibration_error(np.eye(3), (np.arange(3) + 1) % 3) == 1.0
    with pytest.raises(types.UsageError, match="in 0 bins"):
        scores.calibration_error(np.eye(3), np.arange(3), bins=0)


@pytest.mark.parametrize("level", [0.95, 0.68])
def test_bootstrap_of_accuracy_is_the_binomial_interval(level):
    labels, predictions = answers(4000)
    accuracy = np.mean(labels == predictions)
    low, high = scores.bootstrap(labels, predictions, 7, resamples=1000, level=level, seed=0)["accuracy"]
    half = {0.95: 1.960, 0.68: 0.994}[level] * np.sqrt(accuracy * (1 - accuracy) / 4000)
    np.testing.assert_allclose([accuracy - low, high - accuracy], half, rtol=0.15)


def test_bootstrap_of_f1_is_what_a_loop_over_resamples_gives():
    labels, predictions = answers(600)
    found = scores.bootstrap(labels, predictions, 7, resamples=1000, level=0.9, seed=0)["macro_f1"]
    random = np.random.default_rng(0)
    drawn = (random.integers(0, 600, 600) for _ in range(1000))
    scored = [scores.macro_f1(scores.confusion(labels[rows], predictions[rows], 7)) for rows in drawn]
    low, high = np.quantile(scored, [0.05, 0.95])
    np.testing.assert_allclose(found, [low, high], atol=0.1 * (high - low))
    assert found[0] < scores.macro_f1(scores.confusion(labels, predictions, 7)) < found[1]


def test_bootstrap_repeats_itself_whatever_the_chunks(monkeypatch):
    labels, predictions = answers(100)

    def intervals(**changes):
        return scores.bootstrap(labels, predictions, 7, **{"resamples": 50, "level": 0.9, "seed": 2**32 - 1} | changes)

    whole = intervals()
    assert intervals() == whole
    assert intervals(seed=1) != whole
    monkeypatch.setattr(scores, "_DRAWS_AT_ONCE", 700)  # 7 resamples, and at last 1
    assert intervals() == whole
    assert intervals(resamples=49) != whole


def test_bootstrap_counts_absent_classes_as_macro_f1_does():
    # One image a class, all right: many a class is missing in a resample, and none is wrong there.
    labels = np.arange(30)
    assert scores.bootstrap(labels, labels, 40, resamples=20, level=0.9, seed=0) == {
        "accuracy": (1.0, 1.0),
        "macro_f1": (0.75, 0.75),
    }
    one = scores.bootstrap(np.array([1]), np.array([0]), 2, resamples=20, level=0.9, seed=0)
    assert one == {"accuracy": (0.0, 0.0), "macro_f1": (0.0, 0.0)}


@pytest.mark.parametrize("changes", [{"resamples": 0}, {"level": 0.0}, {"level": 1.0}])
def test_bootstrap_refuses_what_cannot_be(changes):
    labels, predictions = answers(10)
    with pytest.raises(types.UsageError, match="bootstrap of 10 images"):
        scores.bootstrap(labels, predictions, 7, **{"resamples": 5, "level": 0.9, "seed": 0} | changes)
    with pytest.raises(types.UsageError, match="bootstrap of 0 images"):
        scores.bootstrap(labels[:0], labels[:0], 7, resamples=5, level=0.9, seed=0)
