"""What can be explored at all."""

import dataclasses

import numpy as np
import pytest

from ssl_jax.explore import subject
from ssl_jax.types import UsageError
from tests import explore_subjects


def test_rows_are_taken_evenly_from_the_first_to_the_last():
    assert subject.evenly(5, 10).tolist() == [0, 1, 2, 3, 4]
    assert subject.evenly(101, 5).tolist() == [0, 25, 50, 75, 100]


def test_a_row_that_is_not_finite_is_named():
    blobs = explore_subjects.blobs()
    features = blobs.features.copy()
    features[[7, 9], 0] = np.nan, np.inf
    with pytest.raises(UsageError, match=r"of 2 of 120 images are not finite, the first of them 'image 7'"):
        dataclasses.replace(blobs, features=features)


@pytest.mark.parametrize("change", [{"names": ("a",)}, {"labels": np.zeros(3, np.int32)}, {"images": np.zeros((2, 4))}])
def test_lengths_must_agree(change):
    with pytest.raises(UsageError, match="120 rows of features"):
        dataclasses.replace(explore_subjects.blobs(), **change)


def test_two_rows_are_too_few():
    with pytest.raises(UsageError, match="at least 3 rows"):
        explore_subjects.blobs(count=2)


def test_constant_features_are_refused_and_nearly_constant_ones_are_not():
    blobs = explore_subjects.blobs()
    constant = np.broadcast_to(blobs.features[:1], blobs.features.shape)
    with pytest.raises(UsageError, match="the same for all 120 images"):
        dataclasses.replace(blobs, features=constant).refuse_constant()
    dataclasses.replace(blobs, features=constant + 1e-3 * blobs.features).refuse_constant()


def test_labels_without_a_known_one_are_no_labels():
    assert explore_subjects.blobs().labelled
    assert not explore_subjects.blobs(labelled=False).labelled
