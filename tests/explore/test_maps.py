"""Maps: blobs stay apart on each, the file holds what the page shows, and a map that cannot be made is told."""

import csv
import importlib.util
import io

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from ssl_jax.explore import maps
from tests import explore_subjects


def made(subject, **more):
    return maps.part(subject, {"class": (subject.labels, subject.class_names)}, **more)


def places(part, name):
    rows = list(csv.DictReader(io.StringIO(part.files["embedding.csv"])))
    return np.array([[float(row[f"{name}_{axis}"]) for axis in (1, 2)] for row in rows])


def test_blobs_stay_apart_on_every_map():
    blobs = explore_subjects.blobs(count=90)
    part = made(blobs)
    names = ["pca", "tsne"] + (["umap"] if importlib.util.find_spec("umap") else [])
    for name in names:
        found = places(part, name)
        assert KNeighborsClassifier(3).fit(found, blobs.labels).score(found, blobs.labels) > 0.95, name
        assert part.files[f"map_{name}.png"].startswith(b"\x89PNG")
    assert part.files["map_pca_3d.png"] != part.files["map_pca.png"]
    assert part.html.count("<noscript>") == len(names) + 1 and part.metrics["images"] == 90


def test_a_seed_repeats_a_map():
    blobs = explore_subjects.blobs(count=60, images=False)
    first, again = (places(made(blobs, seed=3), "tsne") for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_only_so_many_images_are_mapped():
    part = made(explore_subjects.blobs(count=90), most=20)
    rows = list(csv.DictReader(io.StringIO(part.files["embedding.csv"])))
    assert len(rows) == 20 and rows[0]["image"] == "image 0" and rows[-1]["image"] == "image 89"
    assert rows[-1]["class"] == "c"


def test_without_umap_the_others_stand_and_it_says_so(monkeypatch):
    before = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "umap" else before(name))
    part = made(explore_subjects.blobs(count=60, images=False))
    assert "umap-learn is not installed" in part.html and "umap-learn is not installed" in part.lines[0]
    assert "umap_1" not in part.files["embedding.csv"] and "tsne_1" in part.files["embedding.csv"]


def test_too_few_images_for_a_map_are_told():
    part = made(explore_subjects.blobs(count=4, groups=2, images=False))
    assert "No t-SNE: it wants 5 images" in part.html and "pca_1" in part.files["embedding.csv"]


@pytest.mark.skipif(importlib.util.find_spec("umap") is None, reason="umap-learn is not installed")
def test_umap_wants_more_images_than_neighbours():
    assert "No UMAP: it wants more than 15" in made(explore_subjects.blobs(count=15, images=False)).html
