"""The rules by which self-training keeps predictions, on cases whose answer is plain."""

import numpy as np
import pytest

from ssl_jax.analysis import confidence
from ssl_jax.types import UsageError

# Six predictions of three classes; class 2 is never predicted with confidence, class 0 most often.
PROBABILITIES = np.array(
    [[0.9, 0.1, 0.0], [0.8, 0.1, 0.1], [0.95, 0.05, 0.0], [0.2, 0.7, 0.1], [0.3, 0.3, 0.4], [0.1, 0.6, 0.3]]
)


def test_fixed_keeps_what_reaches_the_threshold():
    assert confidence.Fixed(0.9).keep(PROBABILITIES, 1).tolist() == [0, 2]
    assert confidence.Fixed(0.9).keep(PROBABILITIES, 5).tolist() == [0, 2]
    assert confidence.Fixed(1.0).keep(PROBABILITIES, 1).tolist() == []


def test_top_share_keeps_the_surest_and_grows():
    rule = confidence.TopShare(1 / 3, growth=1 / 3)
    assert [rule.keep(PROBABILITIES, k).tolist() for k in (1, 2, 3, 9)] == [
        [0, 2],
        [0, 1, 2, 3],
        [0, 1, 2, 3, 4, 5],
        [0, 1, 2, 3, 4, 5],
    ]


def test_without_growth_every_round_keeps_the_same():
    for rule in (confidence.TopShare(1 / 3), confidence.ClassBalanced(0.5)):
        assert rule.keep(PROBABILITIES, 1).tolist() == rule.keep(PROBABILITIES, 4).tolist()


def test_class_balanced_keeps_the_same_of_every_class():
    rule = confidence.ClassBalanced(0.5, growth=0.5)
    assert rule.keep(PROBABILITIES, 1).tolist() == [2, 3, 4]
    assert rule.keep(PROBABILITIES, 2).tolist() == [0, 2, 3, 4, 5]  # class 2 gives all it has


def test_of_equals_the_earlier_are_kept():
    equal = np.full((5, 2), 0.5)
    assert confidence.TopShare(0.4).keep(equal, 1).tolist() == [0, 1]


@pytest.mark.parametrize(
    "make", [lambda: confidence.Fixed(0.0), lambda: confidence.TopShare(1.5), lambda: confidence.ClassBalanced(-1)]
)
def test_what_is_no_share_is_refused(make):
    with pytest.raises(UsageError):
        make()
