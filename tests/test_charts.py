"""The charts draw the numbers they are given, in the page's own colours."""

import re

import numpy as np
import pytest

from ssl_jax import charts

pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install matplotlib to run these tests")


def test_no_values_are_no_section():
    assert charts.maps({}) == charts.confusion({}) == ""
    assert charts.confusion({"eval/a/confusion": np.eye(2, dtype=int)}) == ""  # nobody says what the classes are


def test_no_two_of_eighty_classes_share_colour_and_marker():
    labels = np.arange(80).repeat(2)
    places = np.random.default_rng(0).normal(size=(160, 2))
    chart = charts.maps({"eval/a/map/b": places, "eval/a/map_labels": labels})
    drawn = re.findall(
        r'<g id="[^"]*PathCollection_\d+">\s*<defs>\s*<path id="[^"]*" d="([^"]*)".*?fill: (#\w+)', chart, re.S
    )
    assert len(drawn) == len(set(drawn)) == 80


def confused(counts, names=None, stem="eval/a"):
    names = names or [f"class {place}" for place in range(len(counts))]
    return {f"{stem}/confusion": np.array(counts), f"{stem}/confusion_classes": np.array(names)}


def test_a_confusion_has_true_classes_as_rows_and_predicted_ones_as_columns():
    page = charts.confusion(confused([[36, 64, 0], [0, 17, 0], [0, 0, 0]], ["cat", "dog", "<b>"]))
    cells = re.findall(r'<path d="M ([\d.]+) ([\d.]+) [^"]*"[^>]*style="fill: var\(--series-0\)(.*)"', page)
    (cat, as_dog, dog) = ((float(left), float(top), opacity) for left, top, opacity in cells)
    assert cat[1] == as_dog[1] < dog[1] and cat[0] < as_dog[0] == dog[0]  # SVG counts downwards
    # The square roots of the shares of the row.
    assert (cat[2], as_dog[2], dog[2]) == ("; opacity: 0.6", "; opacity: 0.8", "")
    for text in ("36", "64", "17", "cat", "dog", "&lt;b&gt;", "true class", "predicted class"):
        assert f">{text}</text>" in page
    assert ">0</text>" not in page
    assert "Confused most are cat and dog: 64 of 100 images of cat were taken for dog, and 0 of 17 the other" in page


def test_the_pair_confused_most_is_that_of_both_directions():
    page = charts.confusion(confused([[9, 5, 0], [0, 9, 4], [0, 3, 9]]))
    assert "Confused most are class 1 and class 2: 4 of 13 images of class 1 were taken for class 2, and 3 of" in page
    assert "No image was taken for another class" in charts.confusion(confused([[2, 0], [0, 0]]))


@pytest.mark.parametrize(("classes", "counted", "named"), [(20, 20, 20), (21, 0, 21), (51, 0, 0), (251, 0, 0)])
def test_counts_and_names_are_left_out_where_there_is_no_room(classes, counted, named):
    page = charts.confusion(confused(777 * np.eye(classes, dtype=int)))
    assert page.count(">777</text>") == counted
    assert page.count(">class ") == 2 * named
    assert page.count("<image") == (0 if named else 1)


def test_charts_of_one_kind_from_two_evaluators_have_ids_of_their_own():
    places, labels = np.arange(12.0).reshape(6, 2), np.array([0, 0, 0, 1, 1, 2])
    arrays = {
        f"eval/{name}/{key}": values for name in "ab" for key, values in (("map/x", places), ("map_labels", labels))
    }
    both = confused([[5, 1], [0, 2]]) | confused([[5, 1], [0, 2]], stem="eval/b")
    ids = re.findall(r'\bid="([^"]*)"', charts.maps(arrays) + charts.confusion(both))
    assert ids and len(ids) == len(set(ids))


def test_charts_have_the_colours_of_the_page_and_no_stand_in():
    arrays = {"eval/a/map/b": np.arange(12.0).reshape(6, 2), "eval/a/map_labels": np.array([-1, 0, 0, 1, 1, 2])}
    confusions = charts.confusion(confused([[5, 1], [0, 2]])), charts.confusion(confused(np.eye(60, dtype=int)))
    for chart in (charts.maps(arrays), *confusions):
        assert "#0102" not in chart and "#0103" not in chart
        for name in re.findall(r"var\((--[\w-]+)\)", chart):
            assert charts.STYLE.count(f"{name}:") == 2  # light and dark
