"""The lines of a run's page go through the numbers they are given."""

import re

import numpy as np
import pytest

from ssl_jax import charts, log, report_curves

pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install matplotlib to run these tests")


def draw_curve(values, name="eval/collapse/deviation", **more):
    epochs = np.arange(len(values), dtype=float)
    return report_curves.curves({name: (epochs, np.array(values)), **more})


def curve_heights(page):
    """Where the points of the drawn curve lie, in SVG units from the top."""
    lines = re.findall(r'<path d="(M [^"]*)" clip-path[^>]*style="fill: none; stroke: var\(--series-0\)', page)
    assert len(lines) == 1
    return [float(y) for y in re.findall(r"[ML] [\d.]+ ([\d.]+)", lines[0])]


def test_a_curve_goes_through_its_values():
    values = [0.5, 0.1, 0.9, 0.4]
    heights = curve_heights(draw_curve(values))
    slope, offset = np.polyfit(values, heights, 1)
    assert slope < 0  # SVG counts downwards
    np.testing.assert_allclose(slope * np.array(values) + offset, heights, atol=1e-3)


def test_the_healthy_level_is_drawn_where_it_lies():
    level = (np.arange(2.0), np.array([0.088, 0.088]))
    chart = draw_curve([0.05, 0.02], **{"eval/collapse/healthy": level})
    assert "Dashed" in chart
    assert chart.count("<svg") == 1  # the level is a line in the other chart, not one of its own
    dashed = re.findall(r'<path d="M [\d.]+ ([\d.]+)[^"]*"[^>]*stroke-dasharray', chart)
    heights = curve_heights(chart)
    assert len(dashed) == 1
    per_value = (heights[1] - heights[0]) / (0.02 - 0.05)
    assert float(dashed[0]) == pytest.approx(heights[0] + per_value * (0.088 - 0.05), abs=1e-3)
    assert "Dashed" not in draw_curve([0.05, 0.02])


def test_many_accuracies_keep_their_lines_apart():
    rows = ["raw_pixels", "untrained", *(f"network_{i}" for i in range(12))]
    columns = [log.Column(f"labels_{n}", f"{n} labels", dict.fromkeys(rows, 0.5), {rows[0]: 0.1}) for n in (1, 10)]
    chart = report_curves.accuracies(rows, columns)
    assert all(f">{row}</text>" in chart for row in rows)
    assert report_curves.accuracies(rows, [columns[0], log.Column("knn", "kNN", {}, {})]) == ""


def test_a_single_value_is_no_curve_and_no_values_are_no_section():
    assert draw_curve([0.5]) == ""
    assert report_curves.curves({}) == report_curves.accuracies(["a"], []) == ""


def test_curves_have_the_colours_of_the_page_and_no_stand_in():
    chart = draw_curve([0.5, 0.1])
    assert "#0102" not in chart and "#0103" not in chart
    used = re.findall(r"var\((--[\w-]+)\)", chart)
    assert used and all(charts.STYLE.count(f"{name}:") == 2 for name in used)  # light and dark
