"""Neighbours and copies: planted ones are found, in the set and in the training images, and nothing else is."""

import csv
import dataclasses
import io

import numpy as np
import pytest

from ssl_jax.explore import copies
from tests import explore_subjects


def planted(subject, source, row, place, change=0):
    """The images of `subject` with the one at `place` replaced by that of `source` at `row`, moved by `change`."""
    images = subject.images.copy()
    images[place] = np.clip(source.images[row].astype(int) + change, 0, 255)
    return dataclasses.replace(subject, images=images)


def pairs(part):
    rows = csv.DictReader(io.StringIO(part.files["copies.csv"]))
    return [(row["image"], row["copy"], row["copy_is_in"]) for row in rows]


def test_without_copies_there_are_none():
    part = copies.part(explore_subjects.blobs(), explore_subjects.blobs(seed=1))
    assert part.metrics["copies_within"] == part.metrics["copies_in_training"] == 0 and pairs(part) == []
    assert "copies.png" not in part.files


@pytest.mark.parametrize(("change", "found"), [(0, 2), (4, 2), (8, 0)])
def test_a_copy_in_the_set_is_found_up_to_a_small_change(change, found):
    blobs = explore_subjects.blobs()
    images = np.clip(blobs.images, 10, 240)
    blobs = dataclasses.replace(blobs, images=images)
    part = copies.part(planted(blobs, blobs, 3, 50, change))
    assert part.metrics["copies_within"] == found
    expected = [("image 3", "image 50", "these images"), ("image 50", "image 3", "these images")]
    assert sorted(pairs(part)) == (sorted(expected) if found else [])
    assert part.metrics["copies_of_another_class"] == found  # row 3 is of class a, row 50 of class c


def test_a_copy_in_the_training_images_is_found():
    test, training = explore_subjects.blobs(), explore_subjects.blobs(seed=1)
    part = copies.part(planted(test, training, 17, 4), training)
    assert pairs(part) == [("image 4", "image 17", "training images")]
    assert part.metrics["copies_in_training"] == 1 and part.metrics["copies_within"] == 0


def test_training_images_of_another_shape_are_told_not_to_be_compared():
    training = dataclasses.replace(explore_subjects.blobs(), images=np.zeros((120, 10, 10, 1), np.uint8))
    part = copies.part(explore_subjects.blobs(), training)
    assert "copies_in_training" not in part.metrics and "of another shape" in part.lines[0]


def test_an_unknown_label_is_no_other_class():
    blobs = explore_subjects.blobs()
    unlabelled = dataclasses.replace(blobs, labels=np.full(120, -1, np.int32), class_names=())
    part = copies.part(blobs, unlabelled)
    assert part.metrics["copies_in_training"] == 120 and part.metrics["copies_of_another_class"] == 0
    labels = np.where(np.arange(120) % 2, -1, blobs.labels).astype(np.int32)
    half = copies.part(dataclasses.replace(blobs, labels=labels))
    assert half.metrics["neighbours_of_one_class_percent"] == 100


def test_neighbours_are_of_the_same_blob():
    part = copies.part(explore_subjects.blobs())
    assert part.metrics["neighbours_of_one_class_percent"] == 100
    assert part.files["neighbours.png"].startswith(b"\x89PNG")


def test_without_images_neighbours_are_named():
    blobs = explore_subjects.blobs(images=False)
    part = copies.part(blobs)
    assert part.files == {} and "<table>" in part.html and "image 0" in part.html
