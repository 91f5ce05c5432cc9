"""Self-training's choice of guesses, on predictions whose truth is known."""

import numpy as np
import pytest

from ssl_jax import self_training
from ssl_jax.analysis import confidence
from ssl_jax.types import UsageError

NAMES = ("a", "b")


class Six:
    """Six images whose single pixel is the confidence (in percent) of class 1; the true labels are given."""

    class_names = NAMES
    examples = 6

    def __init__(self, truth=(1, 1, 0, 0, 1, 0)):
        self._truth = np.array(truth, np.int32)

    def labels(self):
        return self._truth

    def batches(self):
        pixels = np.array([95, 60, 10, 80, 30, 45, 0, 0], np.uint8).reshape(2, 4, 1, 1, 1)
        labels = np.pad(self._truth, (0, 2)).reshape(2, 4)
        for part in range(2):
            yield {"image": pixels[part], "label": labels[part], "mask": np.arange(4) < (4, 2)[part]}


def probabilities(images):
    second = images.reshape(-1).astype(np.float32) / 100
    return np.stack([1 - second, second], axis=1)


def guess(keep, labelled=(), examples=None, names=NAMES):
    settings = self_training.SelfTraining(rounds=1, keep=keep, unlabelled=examples or Six())
    return self_training.guess(probabilities, settings, round_=1, labelled=np.array(labelled, int), class_names=names)


def test_kept_guesses_carry_predicted_labels_and_known_precision():
    found = guess(confidence.Fixed(0.7))
    assert found.rows.tolist() == [0, 2, 3, 4] and found.labels.tolist() == [1, 0, 1, 0]
    np.testing.assert_allclose(found.confidences, [0.95, 0.9, 0.8, 0.7], rtol=1e-6)
    assert found.candidates == 6 and found.precision == 0.5 and found.accuracy == pytest.approx(4 / 6)


def test_labelled_images_are_no_candidates():
    found = guess(confidence.Fixed(0.7), labelled=[0, 3])
    assert found.rows.tolist() == [2, 4] and found.candidates == 4 and found.precision == 0.5


def test_truth_is_unknown_where_there_is_none():
    assert guess(confidence.Fixed(0.7), examples=Six((-1,) * 6)).precision is None
    assert guess(confidence.Fixed(0.7), names=("x", "y")).accuracy is None
    assert guess(confidence.Fixed(0.7), examples=Six((1, -1, -1, -1, -1, -1))).precision == 1.0


def test_nothing_to_guess_at_is_one_line():
    with pytest.raises(UsageError, match="all 6 images are labelled"):
        guess(confidence.Fixed(0.7), labelled=range(6))
    with pytest.raises(UsageError, match=r"sure of none of 6 images \(the surest at 0\.950\)"):
        guess(confidence.Fixed(0.99))
    with pytest.raises(UsageError, match="at least 1"):
        self_training.SelfTraining(rounds=0, keep=confidence.Fixed(), unlabelled=Six())
