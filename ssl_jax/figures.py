"""Static figures of given numbers, each as inline SVG in the colours of its page and as a PNG in light ones."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ssl_jax import charts

_DASHES = ("-", "--", ":", "-.")
_NAME_CHARACTERS = 40
_MOST_DRAWN = 5000


class Figure(NamedTuple):
    """One figure, drawn twice.

    Attributes:
        svg: inline SVG whose colours are the page's, with its own ids and a label for those who cannot see it.
        png: a PNG file in light colours on white, 144 pixels an inch.
    """

    svg: str
    png: bytes


def lines(
    series: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    label: str,
    x_label: str,
    y_label: str = "",
    log_x: bool = False,
    log_y: bool = False,
    level: Mapping[str, float] | None = None,
    width: float = 7.2,
    height: float = 3.6,
    markers: bool | None = None,
) -> Figure:
    """Curves by name, each (x [p], y [p]), which end where a value is not finite or, on a log axis, not positive.

    Args:
        series: up to 20 curves differ in colour or dashes; of more than 5,000 points every few are drawn.
        label: what the figure shows, in words; no two figures of a page have the same.
        level: heights of dashed horizontal lines by name.
        width: in inches, as `height`.
        markers: whether points are marked; by default where no curve has more than 30.
    """
    level = level or {}
    if markers is None:
        markers = all(len(x) <= 30 for x, _ in series.values())

    def draw(axes: Any, palette: charts.Palette) -> None:
        if log_x:
            axes.set_xscale("log")
        if log_y:
            axes.set_yscale("log")
        handles = []
        for place, (x, y) in enumerate(series.values()):
            kept = _evenly(len(x))
            (handle,) = axes.plot(
                _drawable(np.asarray(x)[kept], log_x),
                _drawable(np.asarray(y)[kept], log_y),
                color=palette.series[place % len(palette.series)],
                linestyle=_DASHES[place // len(palette.series) % len(_DASHES)],
                marker=charts.MARKERS[place % len(charts.MARKERS)] if markers else None,
                markersize=4,
                linewidth=2,
            )
            handles.append(handle)
        for dashes, (_, value) in zip(itertools.cycle([(4, 3), (1, 2), (7, 3)]), level.items(), strict=False):
            handles.append(axes.axhline(value, color=palette.ink, linestyle=(0, dashes), linewidth=1.2, alpha=0.7))
        if not log_x and all(np.all(np.asarray(x) % 1 == 0) for x, _ in series.values()):
            axes.xaxis.get_major_locator().set_params(integer=True)
        _caption(axes, x_label, y_label)
        if len(handles) > 1 or level:
            _legend(axes.figure, handles, [*series, *level], palette, width)

    return _twice(draw, width, height, label)


def bars(
    values: Mapping[str, float],
    *,
    label: str,
    x_label: str = "",
    level: Mapping[str, float] | None = None,
    width: float = 7.2,
) -> Figure:
    """Horizontal bars by name, the first on top, with their values; a value that is not finite is told in words alone.

    `level` draws dashed vertical lines by name; `label` and `width` as for `lines`.
    """
    level = level or {}
    numbers = np.array(list(values.values()), float)
    finite = np.isfinite(numbers)
    # Room for the value that stands beyond the end of its bar.
    low = min(0.0, float(np.min(numbers, initial=0.0, where=finite)))
    high = max(0.0, float(np.max(numbers, initial=0.0, where=finite)), *level.values())
    room = 0.14 * ((high - low) or 1.0)

    def draw(axes: Any, palette: charts.Palette) -> None:
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x", color=palette.rule, linewidth=0.7)
        places = np.arange(len(numbers))
        axes.barh(places, np.where(finite, numbers, 0.0), height=0.62, color=palette.series[0])
        for place, (number, known) in enumerate(zip(numbers, finite, strict=True)):
            text, at, side = (f"{number:.4g}", number, -1 if number < 0 else 1) if known else (str(number), 0.0, 1)
            axes.annotate(
                text,
                (at, place),
                xytext=(4 * side, 0),
                textcoords="offset points",
                ha="left" if side > 0 else "right",
                va="center",
                size=9,
                color=palette.ink,
            )
        names = [charts.shortened(name, _NAME_CHARACTERS) for name in values]
        axes.set_yticks(places, names, parse_math=False)
        axes.set(xlim=(low - room if low < 0 else 0.0, high + room), ylim=(len(numbers) - 0.4, -0.6))
        handles = [
            axes.axvline(value, color=palette.ink, linestyle=(0, dashes), linewidth=1.2, alpha=0.7)
            for dashes, value in zip(itertools.cycle([(4, 3), (1, 2), (7, 3)]), level.values(), strict=False)
        ]
        _caption(axes, x_label, "")
        if level:
            _legend(axes.figure, handles, list(level), palette, width)

    return _twice(draw, width, 0.7 + 0.3 * max(1, len(numbers)) + 0.3 * bool(level), label)


def points(
    places: np.ndarray,
    groups: np.ndarray,
    names: Sequence[str],
    *,
    label: str,
    x_label: str = "",
    y_label: str = "",
    width: float = 5.4,
) -> Figure:
    """Points [n, 2] in colour and shape of their groups, int [n], whose names stand in their midst (the first 30).

    A group of -1 is drawn in grey and has no name; of more than 5,000 points 5,000, evenly taken, are drawn. `label`
    and `width` as for `lines`.
    """
    kept = _evenly(len(places))
    places, groups = np.asarray(places)[kept], np.asarray(groups)[kept]

    def draw(axes: Any, palette: charts.Palette) -> None:
        charts.draw_groups(axes, places, groups, names, palette)
        _caption(axes, x_label, y_label)

    return _twice(draw, width, width, label)


def _twice(draw: Callable[[Any, charts.Palette], None], width: float, height: float, label: str) -> Figure:
    on_page, page_axes = charts.blank(width, height, charts.PAGE)
    draw(page_axes, charts.PAGE)
    alone, light_axes = charts.blank(width, height, charts.LIGHT)
    draw(light_axes, charts.LIGHT)
    return Figure(charts.as_svg(on_page, label), charts.as_png(alone))


def _evenly(count: int) -> np.ndarray:
    """Which of `count` points are drawn: the first and the last among them."""
    return np.rint(np.linspace(0, count - 1, min(count, _MOST_DRAWN))).astype(int)


def _drawable(values: np.ndarray, logarithmic: bool) -> np.ndarray:
    values = np.asarray(values, float)
    return np.where(np.isfinite(values) & ((values > 0) | (not logarithmic)), values, math.nan)


def _caption(axes: Any, x_label: str, y_label: str) -> None:
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.xaxis.label.set_parse_math(False)
    axes.yaxis.label.set_parse_math(False)


def _legend(figure: Any, handles: Sequence[Any], names: Sequence[str], palette: charts.Palette, width: float) -> None:
    shown = [charts.shortened(name, _NAME_CHARACTERS) for name in names]
    # As many columns as fit: about 5.2 units a character, and 40 for the line and the gap.
    columns = max(1, int(72 * width / (5.2 * max(map(len, shown)) + 40)))
    legend = figure.legend(
        handles,
        shown,
        loc="outside upper left",
        ncols=min(columns, len(shown)),
        frameon=False,
        labelcolor=palette.ink,
        fontsize=9,
        handlelength=2.4,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
