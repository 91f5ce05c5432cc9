"""Odd ones: a known outlier comes first, odd classes are found, and what is normal is learned where it should be."""

import csv
import dataclasses
import io

import numpy as np
import pytest

from ssl_jax.explore import odd_ones
from ssl_jax.types import UsageError
from tests import explore_subjects

SCORES = ("knn", "mahalanobis", "isolation_forest")


def rows_of(part):
    return list(csv.DictReader(io.StringIO(part.files["anomalies.csv"])))


def one_blob_and(odd_row, count=100):
    blobs = explore_subjects.blobs(count=count, groups=1)
    features = blobs.features.copy()
    features[odd_row] += 20
    return dataclasses.replace(blobs, features=features)


def test_a_far_image_is_the_strangest_by_every_score():
    part = odd_ones.part(one_blob_and(41))
    rows = rows_of(part)
    for score in SCORES:
        assert max(range(100), key=lambda row: float(rows[row][score])) == 41
    assert rows[41]["image"] == "image 41" and rows[41]["class"] == "a" and "auroc" not in part.metrics
    assert {f"strangest_{score}.png" for score in SCORES} <= part.files.keys()


def test_an_odd_class_is_found_and_an_equal_one_is_not():
    blobs = explore_subjects.blobs(groups=3)
    part = odd_ones.part(blobs, normal=("a", "b"))
    areas = part.metrics["auroc"]
    # The forest cuts channel by channel, and sees half of the odd ones' distance.
    assert areas["knn"] == areas["mahalanobis"] == 1.0 and areas["isolation_forest"] > 0.85
    assert part.metrics["odd_images"] == 40
    assert part.metrics["learned_from"] == 80 and "odd ones: AUROC knn 1.000" in part.lines[0]
    assert [row["odd"] for row in rows_of(part)[:3]] == ["0", "0", "1"]
    draw = np.random.default_rng(0)
    alike = dataclasses.replace(blobs, features=draw.normal(size=blobs.features.shape).astype(np.float32))
    assert all(0.3 < area < 0.7 for area in odd_ones.part(alike, normal=("a", "b")).metrics["auroc"].values())


def test_what_is_normal_is_learned_from_training_images_where_they_are_given():
    blobs = explore_subjects.blobs(groups=3)
    without_c = explore_subjects.blobs(count=60, groups=2, seed=5)
    training = dataclasses.replace(without_c, class_names=blobs.class_names)
    # Most of the images explored are of class c, so by themselves they would make it the normal one.
    mostly_c = np.flatnonzero((blobs.labels == 2) | (np.arange(120) < 12))
    subject = dataclasses.replace(
        blobs,
        features=blobs.features[mostly_c],
        labels=blobs.labels[mostly_c],
        names=tuple(blobs.names[row] for row in mostly_c),
        images=blobs.images[mostly_c],
    )
    part = odd_ones.part(subject, training=training, normal=("a", "b"))
    assert part.metrics["learned_from"] == 60
    assert part.metrics["auroc"]["knn"] == part.metrics["auroc"]["mahalanobis"] == 1.0


def test_where_classes_are_chance_no_score_finds_them_however_many_channels():
    draw = np.random.default_rng(0)
    scales = 1 / np.arange(1, 129)
    features = (draw.normal(size=(300, 128)) * scales) @ draw.normal(size=(128, 128))
    labels = (np.arange(300) % 10 == 0).astype(np.int32)
    blobs = explore_subjects.blobs(count=300, groups=2)
    subject = dataclasses.replace(blobs, features=features.astype(np.float32), labels=labels)
    areas = odd_ones.part(subject, normal=("a",)).metrics["auroc"]
    # A covariance scored on what it was fitted to would come to 0.9.
    assert all(0.35 < area < 0.65 for area in areas.values()), areas


@pytest.mark.parametrize("names", [("c", "b", "a"), ("z", "a", "b"), ()])
def test_training_classes_are_told_by_name(names):
    subject = explore_subjects.blobs(groups=3)
    training = explore_subjects.blobs(count=150, groups=3, seed=7)
    places = [names.index(name) if name in names else -1 for name in "abc"]
    relabelled = np.array(places, np.int32)[training.labels]
    training = dataclasses.replace(training, labels=relabelled, class_names=names)
    if not names:
        with pytest.raises(UsageError, match="0 normal images"):
            odd_ones.part(subject, training=training, normal=("a", "b"))
        return
    part = odd_ones.part(subject, training=training, normal=("a", "b"))
    assert part.metrics["auroc"]["knn"] == 1.0 and part.metrics["learned_from"] == 100


def test_of_many_channels_the_first_components_are_taken(monkeypatch):
    monkeypatch.setattr(odd_ones, "_MOST_CHANNELS", 3)
    areas = odd_ones.part(explore_subjects.blobs(groups=3), normal=("a", "b")).metrics["auroc"]
    assert areas["mahalanobis"] == 1.0


def test_unlabelled_images_take_no_part_in_the_area():
    blobs = explore_subjects.blobs(groups=3)
    labels = blobs.labels.copy()
    labels[:30] = -1
    part = odd_ones.part(dataclasses.replace(blobs, labels=labels), normal=("a", "b"))
    assert part.metrics["odd_images"] == 30 and part.metrics["learned_from"] == 60
    assert rows_of(part)[0]["odd"] is None or rows_of(part)[0]["odd"] == ""


@pytest.mark.parametrize(
    ("normal", "told"),
    [(("a", "b", "c"), "all are normal"), (("d",), "no class 'd'"), ((), None)],
)
def test_a_list_of_normal_classes_must_leave_something_odd(normal, told):
    blobs = explore_subjects.blobs(groups=3)
    if told is None:
        with pytest.raises(UsageError, match="no labels"):
            odd_ones.normal_classes(explore_subjects.blobs(labelled=False), ("a",))
        return
    with pytest.raises(UsageError, match=told):
        odd_ones.normal_classes(blobs, normal)


def test_a_single_class_has_nothing_odd():
    with pytest.raises(UsageError, match="all are normal"):
        odd_ones.normal_classes(explore_subjects.blobs(groups=1), ("a",))


def test_too_few_normal_images_are_refused():
    with pytest.raises(UsageError, match="10 normal images"):
        odd_ones.part(explore_subjects.blobs(count=10))
