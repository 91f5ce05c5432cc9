"""Label subsets: balanced, repeatable, nested, and refused by name where a class has too few."""

import numpy as np
import pytest

from ssl_jax import subsets
from ssl_jax.types import UsageError

LABELS = np.array([0, 1, 2] * 40 + [1] * 30 + [2] * 5)
NAMES = ("ant", "bee", "cow")


@pytest.mark.parametrize("seed", range(3))
def test_counts_are_equal_and_draws_nested_and_repeatable(seed):
    small, large = (subsets.Subset(per_class=count, seed=seed).draw(LABELS, NAMES) for count in (4, 11))
    assert np.bincount(LABELS[small]).tolist() == [4, 4, 4] and np.bincount(LABELS[large]).tolist() == [11, 11, 11]
    assert set(small) < set(large) and len(set(large)) == 33
    assert (np.diff(large) > 0).all()
    np.testing.assert_array_equal(small, subsets.Subset(per_class=4, seed=seed).draw(LABELS, NAMES))


def test_another_seed_is_another_draw():
    first, second = (subsets.Subset(per_class=10, seed=seed).draw(LABELS, NAMES) for seed in (0, 1))
    assert len(set(first) & set(second)) < 20


def test_a_share_is_the_same_part_of_every_class_and_at_least_one():
    drawn = subsets.Subset(share=0.1).draw(LABELS, NAMES)
    assert np.bincount(LABELS[drawn]).tolist() == [4, 7, 4]
    assert np.bincount(LABELS[subsets.Subset(share=0.001).draw(LABELS, NAMES)]).tolist() == [1, 1, 1]
    for everything in (subsets.Subset(share=1.0), subsets.Subset()):
        np.testing.assert_array_equal(everything.draw(LABELS, NAMES), np.arange(len(LABELS)))


def test_a_class_with_too_few_is_named():
    with pytest.raises(UsageError, match="class 'ant' has 40 labelled images, fewer than the 41 asked for"):
        subsets.Subset(per_class=41).draw(LABELS, NAMES)
    with pytest.raises(UsageError, match="class 'dog' has 0"):
        subsets.Subset(per_class=1).draw(LABELS, (*NAMES, "dog"))


@pytest.mark.parametrize(
    "arguments",
    [
        {"per_class": 1, "share": 0.1},
        {"per_class": 0},
        {"share": 0.0},
        {"share": 1.5},
        {"per_class": 1, "seed": -1},
    ],
)
def test_what_makes_no_sense_is_refused(arguments):
    with pytest.raises(UsageError):
        subsets.Subset(**arguments)


def test_held_out_images_are_the_same_share_of_every_class():
    aside = subsets.held_out(LABELS, 3, 0.25, seed=0, name="x")
    assert np.bincount(LABELS[aside]).tolist() == [10, 18, 11]
    members = subsets.shuffled_members(LABELS, 3, seed=0, name="y", among=~aside)
    assert not set(np.concatenate(members)) & set(np.flatnonzero(aside))
