"""Figures draw the numbers that they are given, in the page's colours and in light ones, whatever they are called."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from ssl_jax import charts, figures

pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install matplotlib to run these tests")

EVIL = '<script>alert("1")</script> $x_1$ \\d #'


def curve(svg, colour=0):
    """(x [p], y [p]) of the curve in that colour, in SVG units from the left and from the top."""
    drawn = re.findall(
        rf'<path d="(M [^"]*)" clip-path[^>]*style="fill: none; stroke: var\(--series-{colour}\)[^"]*"', svg
    )
    assert len(drawn) == 1
    return np.array(re.findall(r"[ML] ([\d.]+) ([\d.]+)", drawn[0]), float).T


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def drawn_in(png, colour):
    """How many pixels of a PNG are of that `#rrggbb`."""
    wanted = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    return int((np.abs(pixels(png) - wanted).sum(axis=-1) < 6).sum())


@pytest.mark.parametrize("log_x", [False, True])
@pytest.mark.parametrize("log_y", [False, True])
def test_a_curve_goes_through_its_values_on_either_axis(log_x, log_y):
    x, y = np.array([1.0, 2.0, 5.0, 40.0]), np.array([0.3, 7.0, 0.01, 2.0])
    drawn = figures.lines({"a": (x, y)}, label="a", x_label="x", log_x=log_x, log_y=log_y)
    across, down = curve(drawn.svg)
    for values, places, logarithmic in ((x, across, log_x), (y, down, log_y)):
        values = np.log(values) if logarithmic else values
        slope, offset = np.polyfit(values, places, 1)
        np.testing.assert_allclose(slope * values + offset, places, atol=2e-3)
    assert across[0] < across[-1] and down[1] == min(down)  # SVG counts downwards


def test_a_level_lies_at_its_value_and_has_a_name():
    drawn = figures.lines(
        {"a": (np.arange(3), np.array([0.0, 1.0, 4.0]))}, label="a", x_label="x", level={"chance": 2.0}
    )
    _, heights = curve(drawn.svg)
    dashed = [float(y) for y in re.findall(r'<path d="M [\d.]+ ([\d.]+)[^"]*" clip-path[^>]*dasharray', drawn.svg)]
    assert dashed == [pytest.approx((heights[0] + heights[2]) / 2, abs=1e-3)]
    assert ">chance</text>" in drawn.svg


def test_what_no_axis_can_show_is_left_out():
    y = np.array([1.0, np.nan, 10.0, np.inf, 0.0, -1.0, 100.0])
    drawn = figures.lines({"a": (np.arange(7), y)}, label="a", x_label="x", log_y=True, markers=True)
    assert len(re.findall(r'<use [^>]*style="fill: var\(--series-0\)', drawn.svg)) == 3
    nothing = figures.lines({"a": (np.arange(2), np.array([np.nan, -1.0]))}, label="b", x_label="x", log_y=True)
    assert nothing.svg.startswith("<svg") and nothing.png.startswith(b"\x89PNG")


def test_twenty_curves_differ_and_all_are_named():
    x = np.arange(40)
    series = {f"run {place}": (x, x * (place + 1)) for place in range(20)}
    drawn = figures.lines(series, label="many", x_label="x")
    styles = re.findall(r'clip-path[^>]*style="(fill: none;[^"]* stroke: var\(--series[^"]*)"', drawn.svg)
    assert len(styles) == len(set(styles)) == 20
    assert all(f">{name}</text>" in drawn.svg for name in series)
    # A single curve needs no legend.
    assert ">run 0</text>" not in figures.lines({"run 0": series["run 0"]}, label="one", x_label="x").svg


def test_points_are_marked_where_there_are_few():
    def marked(count, **options):
        return "<use" in re.sub(
            r'<g id="[^"]*(xtick|ytick).*?</g>\s*</g>',
            "",
            figures.lines({"a": (np.arange(count), np.arange(count))}, label="a", x_label="", **options).svg,
            flags=re.DOTALL,
        )

    assert marked(5) and marked(31, markers=True)
    assert not marked(31) and not marked(5, markers=False)


def test_bars_are_as_long_as_their_values_and_the_first_is_on_top():
    values = {"one": 1.0, "none": np.nan, "two": 2.0, "back": -0.5}
    svg = figures.bars(values, label="bars").svg
    corners = re.findall(r'<path d="M ([\d.]+) ([\d.]+)\s+L ([\d.]+) [^"]*"[^>]*style="fill: var\(--series-0\)', svg)
    left, top, right = np.array(corners, float).T
    lengths = right - left
    np.testing.assert_allclose(lengths / lengths[0], [1, 0, 2, -0.5], atol=1e-3)
    assert list(top) == sorted(top)
    assert all(f">{text}</text>" in svg for text in ("1", "nan", "2", "-0.5", "one", "none", "two", "back"))


def test_points_lie_in_place_in_the_colours_of_their_groups():
    places, groups = np.array([[0.0, 0.0], [1.0, 3.0], [2.0, 1.0]]), np.array([1, 0, -1])
    svg = figures.points(places, groups, ["zero", "one"], label="points").svg
    found = {
        colour: (float(x), float(y))
        for x, y, colour in re.findall(r'<use [^>]*x="([\d.]+)" y="([\d.]+)" style="fill: ([^;"]+)', svg)
    }
    first, second, none = (found[key] for key in (charts.CLASS_COLOURS[1], charts.CLASS_COLOURS[0], "var(--rule)"))
    assert none[0] - first[0] == pytest.approx(2 * (second[0] - first[0]), abs=1e-3)
    assert first[1] - second[1] == pytest.approx(3 * (first[1] - none[1]), abs=1e-3)
    assert ">zero</text>" in svg and ">one</text>" in svg


def test_many_points_are_thinned():
    places = np.random.default_rng(0).normal(size=(12_001, 2))
    svg = figures.points(places, np.zeros(12_001, int), ["all"], label="points").svg
    assert svg.count("<use ") == 5000


@pytest.fixture(scope="module")
def each():
    """One figure of every kind with text that means to do harm, and text that Matplotlib's font lacks."""
    x = np.arange(3)
    words = {"label": EVIL, "x_label": EVIL}
    return (
        figures.lines(
            {EVIL: (x, x), "_hidden": (x, 2 * x), "\u65e5\u672c": (x, 3 * x)}, y_label=EVIL, level={EVIL: 1}, **words
        ),
        figures.bars({EVIL: 1.0, "\u65e5\u672c": 2.0}, level={"$": 1}, **words),
        figures.points(np.eye(3)[:, :2], x, [EVIL, "$", "\u65e5\u672c"], y_label=EVIL, **words),
    )


def test_text_is_shown_as_it_is_and_runs_nothing(each):
    for figure in each:
        assert "<script" not in figure.svg and "http" not in figure.svg
        label = re.search(r'aria-label="([^"]*)"', figure.svg)[1]
        assert label.startswith("&lt;script&gt;alert(&quot;1&quot;)") and label.endswith("$x_1$ \\d #")
        assert re.search(r">&lt;script&gt;alert\(.?.?.?.?.?.?1", figure.svg)
        assert "\u65e5\u672c</text>" in figure.svg
    assert ">_hidden</text>" in each[0].svg


def test_ids_are_unlike_those_of_other_figures():
    x = np.arange(3)
    both = [figures.lines({"a": (x, x)}, label=label, x_label="x").svg for label in ("one", "other")]
    ids = re.findall(r'\bid="([^"]*)"', "".join(both))
    assert ids and len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', both[0])[0]) - {""} <= set(ids)


def test_the_page_has_its_colours_and_the_picture_light_ones(each):
    for figure in each:
        assert "#0102" not in figure.svg and "#0103" not in figure.svg
        for name in re.findall(r"var\((--[\w-]+)\)", figure.svg):
            assert charts.STYLE.count(f"{name}:") == 2  # light and dark
        assert tuple(pixels(figure.png)[0, 0]) == (255, 255, 255)
        assert drawn_in(figure.png, charts.LIGHT.ink) > 20
        assert drawn_in(figure.png, charts.PAGE.ink) == drawn_in(figure.png, charts.PAGE.series[0]) == 0
    assert drawn_in(each[0].png, charts.LIGHT.series[0]) > 100 < drawn_in(each[1].png, charts.LIGHT.series[0])
    assert pixels(each[0].png).shape[:2] == (518, 1036)  # 3.6 by 7.2 inches at 144 pixels


def test_light_colours_are_those_of_a_light_page():
    light = charts.STYLE[: charts.STYLE.index("@media")]
    for name, colour in (("ink", charts.LIGHT.ink), ("rule", charts.LIGHT.rule)):
        assert f"--{name}: {colour};" in light
    for place, colour in enumerate(charts.LIGHT.series):
        assert f"--series-{place}: {colour};" in light
