"""Clusters: a known number of blobs is found three ways, scored as it should be, and named by a person."""

import csv
import dataclasses
import io

import numpy as np
import pytest
import sklearn.metrics

from ssl_jax.explore import clusters, naming
from ssl_jax.types import UsageError
from tests import explore_subjects


@pytest.fixture(scope="module")
def blobs():
    return explore_subjects.blobs(count=160, groups=4)


@pytest.fixture(scope="module")
def found(blobs):
    return clusters.find(blobs, most=8)


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_the_silhouette_finds_the_number_of_blobs(found):
    assert found.count == 4 and list(found.tried) == [2, 3, 4, 5, 6, 7, 8]


def test_three_ways_find_the_blobs(blobs, found):
    assert list(found.by_way) == ["kmeans", "gaussian_mixture", "hdbscan"]
    part = clusters.part(blobs, found)
    for way, groups in found.by_way.items():
        assert part.metrics[way]["clusters"] == 4 and groups.dtype == np.int32
        for score in ("nmi", "ari", "matched_accuracy"):
            assert part.metrics[way][score] > 0.95, (way, score)


def test_scores_are_scikit_learns_over_what_is_in_a_cluster(blobs, found):
    noisy = found.by_way["kmeans"].copy()
    noisy[:10] = -1
    changed = dataclasses.replace(found, by_way={"kmeans": found.by_way["kmeans"], "hdbscan": noisy})
    scores = clusters.part(blobs, changed).metrics["hdbscan"]
    inside = noisy >= 0
    assert scores["noise"] == 10 / 160
    for name, expected in (
        ("silhouette", sklearn.metrics.silhouette_score),
        ("davies_bouldin", sklearn.metrics.davies_bouldin_score),
        ("calinski_harabasz", sklearn.metrics.calinski_harabasz_score),
    ):
        assert scores[name] == pytest.approx(expected(blobs.features[inside], noisy[inside]), rel=1e-4)
    assert scores["nmi"] == pytest.approx(sklearn.metrics.normalized_mutual_info_score(blobs.labels, noisy), rel=1e-4)


def test_the_largest_cluster_comes_first(blobs):
    keep = np.concatenate([np.flatnonzero(blobs.labels == label)[: 10 * (label + 1)] for label in range(4)])
    subject = dataclasses.replace(
        blobs,
        features=blobs.features[keep],
        labels=blobs.labels[keep],
        names=tuple(blobs.names[row] for row in keep),
        images=blobs.images[keep],
    )
    found = clusters.find(subject, count=4)
    assert np.bincount(found.by_way["kmeans"]).tolist() == [40, 30, 20, 10]
    for group, center in enumerate(found.centers):
        mean = subject.features[found.by_way["kmeans"] == group].mean(axis=0)
        np.testing.assert_allclose(center, mean, atol=1e-4)


def test_every_image_gets_the_name_of_its_cluster(blobs, found, tmp_path):
    blank = clusters.part(blobs, found)
    rows = rows_of(blank.files["cluster_names.csv"])
    assert [row["cluster"] for row in rows] == ["0", "1", "2", "3"] and {row["name"] for row in rows} == {""}
    assert [int(row["images"]) for row in rows] == [40] * 4
    lines = blank.files["cluster_names.csv"].splitlines()
    lines[2] = lines[2].replace("1,,", "1,paws & tails,", 1)
    file = tmp_path / "named.csv"
    plain = "\n".join(lines)
    forms = (plain, plain.replace(",", ";"), plain.replace(",", "\t"), f"\ufeff{plain}\n,,,,\n")
    central = clusters.central_rows(blobs, found)
    for text in forms:
        file.write_text(text, encoding="utf-8")
        given = naming.read(file, blobs, central)
        assert given == ["", "paws & tails", "", ""] and naming.holds_names(file)
    file.write_text(blank.files["cluster_names.csv"])
    assert not naming.holds_names(file) and not naming.holds_names(tmp_path / "missing.csv")
    part = clusters.part(blobs, found, given)
    named = rows_of(part.files["clusters.csv"])
    inside = found.by_way["kmeans"] == 1
    assert [row["name"] == "paws & tails" for row in named] == inside.tolist()
    assert "paws &amp; tails" in part.html and "paws & tails" in part.files["cluster_names.csv"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a,b\n1,2\n", "no rows under cluster, name and central_image"),
        ("cluster,name,central_image\n", "no rows under cluster"),
        ("", "no rows under cluster"),
        ("cluster,name,central_image\n9,x,image 1\n", "no cluster '9' here"),
        ("cluster,name,central_image\n\u00b2,x,image 1\n", "no cluster '\u00b2' here"),
        (f"cluster,name,central_image\n0,{'x' * 140_000},image 1\n", "is no table"),
        ("cluster,name,central_image\n0,x,somewhere else\n", "of another exploration"),
    ],
)
def test_names_of_something_else_are_refused(blobs, found, tmp_path, text, told):
    file = tmp_path / "names.csv"
    file.write_text(text)
    central = clusters.central_rows(blobs, found)
    with pytest.raises(UsageError, match=told):
        naming.read(file, blobs, central)
    assert naming.holds_names(file)  # what it is not sure of it keeps
    with pytest.raises(UsageError, match="cannot read --names"):
        naming.read(tmp_path / "missing.csv", blobs, central)


def test_a_cluster_named_twice_is_refused(blobs, found, tmp_path):
    central = clusters.central_rows(blobs, found)
    line = f"0,x,{blobs.names[central[0][0]]}\n"
    (tmp_path / "names.csv").write_text(f"cluster,name,central_image\n{line}{line}")
    with pytest.raises(UsageError, match="no cluster '0' twice"):
        naming.read(tmp_path / "names.csv", blobs, central)


def test_central_and_borderline_images_are_those(blobs, found):
    central = clusters.central_rows(blobs, found)
    for group, rows in enumerate(central):
        assert set(rows) == set(np.flatnonzero(found.by_way["kmeans"] == group))
        distances = np.linalg.norm(blobs.features[rows] - found.centers[group], axis=1)
        assert (np.diff(distances) >= 0).all()
    expected = sklearn.metrics.silhouette_samples(blobs.features, found.by_way["kmeans"])
    np.testing.assert_allclose(found.silhouettes, expected, atol=1e-4)


@pytest.mark.parametrize("count", [1, 160, 200])
def test_a_number_of_clusters_out_of_range_is_refused(blobs, count):
    with pytest.raises(UsageError, match=rf"{count} clusters of 160 images"):
        clusters.find(blobs, count=count)


def test_one_class_has_no_scores_against_classes():
    one = explore_subjects.blobs(count=40, groups=1)
    part = clusters.part(one, clusters.find(one, count=2))
    assert "nmi" not in part.metrics["kmeans"] and part.metrics["kmeans"]["silhouette"] is not None
    unlabelled = explore_subjects.blobs(labelled=False)
    assert "nmi" not in clusters.part(unlabelled, clusters.find(unlabelled, count=3)).metrics["kmeans"]


def test_rows_that_rounding_alone_tells_apart_leave_no_cluster_empty():
    four = np.zeros((4, 6), np.float32)
    four[1, 0], four[2:, 1] = 1, 1
    four[3, 2] = 1e-7
    blobs = explore_subjects.blobs()
    found = clusters.find(dataclasses.replace(blobs, features=np.tile(four, (30, 1))), count=4)
    assert np.bincount(found.by_way["kmeans"]).min() > 0 and found.count in (3, 4)
    assert clusters.part(blobs, found).metrics["kmeans"]["clusters"] == found.count


def test_hdbscan_of_very_many_images_is_left_out_in_words(monkeypatch):
    monkeypatch.setattr(clusters, "_MOST_DENSITY_ROWS", 100)
    blobs = explore_subjects.blobs()
    found = clusters.find(blobs, count=3)
    assert "hdbscan" not in found.by_way and "No HDBSCAN of more than 100" in clusters.part(blobs, found).html


def test_images_that_are_all_but_the_same_make_no_clusters():
    blobs = explore_subjects.blobs()
    two = np.repeat(np.eye(2, 6, dtype=np.float32), 60, axis=0)
    with pytest.raises(UsageError, match="2 different images make no 2 clusters"):
        clusters.find(dataclasses.replace(blobs, features=two))
    with pytest.raises(UsageError, match="the same for all"):
        clusters.find(dataclasses.replace(blobs, features=np.ones_like(blobs.features)))
