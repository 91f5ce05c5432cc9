"""What figures are drawn with, as inline SVG in the colours of a page or alone, and a run's maps and confusions."""

import contextlib
import dataclasses
import html
import io
import math
import re
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ssl_jax import log

STYLE = """\
:root { color-scheme: light dark; --page: #fff; --panel: #f6f7f9; --ink: #1c2128; --soft: #59636e; --rule: #d5dae0;
  --accent: #0b62a8; --alarm: #b3261e; --alarm-page: #fdecea; --series-0: #0072b2; --series-1: #d55e00;
  --series-2: #6b7280; --series-3: #009e73; --series-4: #a8508a; }
@media (prefers-color-scheme: dark) { :root { --page: #14181d; --panel: #1c2229; --ink: #e4e8ec; --soft: #9aa5b1;
  --rule: #38424d; --accent: #6cb8f0; --alarm: #ffb4ab; --alarm-page: #4a1512; --series-0: #56b4e9;
  --series-1: #f0a03c; --series-2: #a3adb8; --series-3: #3ccfa4; --series-4: #e59ac2; } }
figure { margin: 0; }
figure h3 { margin: 0 0 .3rem; font: 600 .85rem/1.4 ui-monospace, "SF Mono", Menlo, Consolas, monospace;
  overflow-wrap: anywhere; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(19rem, 1fr)); gap: 1.2rem; }
.panels figure, .panel { background: var(--panel); border-radius: 10px; padding: 1rem; }
.panel { max-width: 46rem; margin: 1rem 0; }
svg { display: block; width: 100%; height: auto; }
svg text { font-family: inherit !important; }
"""
"""What a page's style sheet must say for the figures: the page's colours, light or dark, and their frames."""


@dataclasses.dataclass(frozen=True)
class Palette:
    """What a figure is drawn in, beside the colours of classes, which are the same everywhere: `#rrggbb` each."""

    ink: str
    rule: str
    panel: str
    series: tuple[str, ...]


# Matplotlib knows no style sheet: it draws in these, and the colours of the page take their place afterwards.
PAGE = Palette("#010203", "#010204", "#010205", ("#010300", "#010301", "#010302", "#010303", "#010304"))
"""Stands for the colours of the page, light or dark, in what `as_svg` writes."""
LIGHT = Palette("#1c2128", "#d5dae0", "#ffffff", ("#0072b2", "#d55e00", "#6b7280", "#009e73", "#a8508a"))
"""The light ones of those colours, for `as_png`."""
CLASS_COLOURS = (
    "#e69f00", "#56b4e9", "#009e73", "#c9b400", "#3a86c8", "#d55e00", "#cc79a7", "#8a8a8a", "#8c6bb1", "#a6761d",
)  # fmt: skip
"""Colours of classes, easy to tell apart for the colour-blind too, on a light page and on a dark one."""
MARKERS = "os^DvPXp*h"
"""Matplotlib's signs for the shapes of points."""

_STAND_INS = {
    PAGE.ink: "currentColor",
    PAGE.rule: "var(--rule)",
    PAGE.panel: "var(--panel)",
    **{colour: f"var(--series-{place})" for place, colour in enumerate(PAGE.series)},
}
_COUNTED_CLASSES, _NAMED_CLASSES = 20, 50


def maps(arrays: Mapping[str, np.ndarray]) -> str:
    """The section of maps, places [n, 2] coloured by label, from arrays named as `report.write` says; "" without."""
    found: dict[str, list[str]] = {}
    for name in arrays:
        named = re.fullmatch(r"(eval/.+)/map/([^/]+)", name)
        if named and f"{named[1]}/map_labels" in arrays:
            found.setdefault(named[1], []).append(named[2])
    parts = []
    for stem, rows in found.items():
        panels = "".join(_map(arrays, stem, row) for row in log.trained_last(rows))
        note = (
            f"Each point is a test image, placed by the two directions in which its features vary most and coloured by "
            f"its class, which pre-training never saw; classes that lie apart are easy to tell apart "
            f"(<code>{html.escape(stem)}</code>)."
        )
        parts.append(f'<div class="panels">{panels}</div><p class="soft">{note}</p>')
    return f"<section><h2>Maps of the features</h2>{''.join(parts)}</section>" if parts else ""


def _map(arrays: Mapping[str, np.ndarray], stem: str, row: str) -> str:
    places, labels = arrays[f"{stem}/map/{row}"], arrays[f"{stem}/map_labels"]
    stride = math.ceil(len(places) / 1500)
    places, labels = places[::stride], labels[::stride]
    names = [str(name) for name in arrays[f"{stem}/map_classes"]] if f"{stem}/map_classes" in arrays else None
    figure, axes = blank(3.9, 3.9)
    draw_groups(axes, places, labels, names)
    shares = f"{stem}/map_explained/{row}"
    held = f"The two axes hold {float(np.sum(arrays[shares])):.0%} of the variance." if shares in arrays else ""
    svg = as_svg(figure, f"Map of the features of {row} in {stem}, coloured by class")
    return f"<figure><h3>{html.escape(row)}</h3>{svg}<figcaption>{held}</figcaption></figure>"


def confusion(arrays: Mapping[str, np.ndarray]) -> str:
    """The section of confusion matrices [k, k] from arrays named as `report.write` says; "" without.

    Counts are written up to 20 classes, names on the axes up to 50; above, the figure is a picture in one fixed colour.
    """
    parts = [
        _confusion(stem, arrays[f"{stem}/confusion"], [str(name) for name in arrays[f"{stem}/confusion_classes"]])
        for stem in (name.removesuffix("/confusion") for name in arrays if re.fullmatch("eval/.+/confusion", name))
        if f"{stem}/confusion_classes" in arrays
    ]
    return f"<section><h2>What is taken for what</h2>{''.join(parts)}</section>" if parts else ""


def _confusion(stem: str, counts: np.ndarray, names: Sequence[str]) -> str:
    import matplotlib.patches

    classes = len(names)
    # As in the picture of the evaluator: the square root lifts the few confusions of a good classifier.
    shades = np.sqrt(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
    figure, axes = blank(7.2, min(7.2, 1.6 + 0.8 * classes))
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    if classes > _NAMED_CLASSES:
        # Of neighbours that share a point of the picture the strongest is shown: a mean would pale the diagonal.
        block = math.ceil(classes / 250)
        shades = np.pad(shades, (0, -classes % block))
        shades = shades.reshape(len(shades) // block, block, -1, block).max(axis=(1, 3))
        end = len(shades) * block - 0.5
        coloured = np.dstack([np.broadcast_to((0.0, 0.447, 0.698), (*shades.shape, 3)), shades])
        axes.imshow(coloured, extent=(-0.5, end, end, -0.5))
        axes.set(xlabel="predicted class, by number", ylabel="true class, by number")
    else:
        for row, column in np.argwhere(shades > 0):
            shade = shades[row, column]
            place = (column - 0.48, row - 0.48)
            axes.add_patch(
                matplotlib.patches.Rectangle(place, 0.96, 0.96, color=PAGE.series[0], alpha=shade, linewidth=0)
            )
            if classes <= _COUNTED_CLASSES:
                ink = PAGE.panel if shade > 0.7 else PAGE.ink
                axes.text(column, row, f"{counts[row, column]}", ha="center", va="center", color=ink, size=9)
        size = min(9.0, 300 / classes)
        shown = [shortened(name, 18) for name in names]
        upright = max(map(len, shown)) * size * 0.6 > 400 / classes
        axes.set_xticks(range(classes), shown, size=size, rotation=90 if upright else 0, parse_math=False)
        axes.set_yticks(range(classes), shown, size=size, parse_math=False)
        axes.set(xlabel="predicted class", ylabel="true class")
    axes.set(xlim=(-0.5, classes - 0.5), ylim=(classes - 0.5, -0.5), aspect="equal")
    svg = as_svg(figure, f"Confusion matrix of {stem}, {classes} classes")
    note = "A row holds the images of one true class, a column those taken for one; stronger colour, larger share."
    return (
        f'<figure class="panel"><h3>{html.escape(stem)}</h3>{svg}'
        f"<figcaption>{note} {html.escape(_most_confused(counts, names))}</figcaption></figure>"
    )


def _most_confused(counts: np.ndarray, names: Sequence[str]) -> str:
    both = np.triu(counts + counts.T, 1)
    if not both.any():
        return "No image was taken for another class than its own."
    one, other = np.unravel_index(np.argmax(both), both.shape)
    # The more frequent direction first.
    if counts[one, other] < counts[other, one]:
        one, other = other, one
    return (
        f"Confused most are {names[one]} and {names[other]}: {counts[one, other]:,} of {counts[one].sum():,} images of "
        f"{names[one]} were taken for {names[other]}, and {counts[other, one]:,} of {counts[other].sum():,} the other "
        "way round."
    )


def draw_groups(
    axes: Any, places: np.ndarray, groups: np.ndarray, names: Sequence[str] | None, palette: Palette = PAGE
) -> None:
    """Points [n, 2] in colour and shape of their groups, int [n] (-1 in grey), and the names of the first 30 groups.

    A name stands at the median of its group; without `names` it is the group's number.
    """
    for group in np.unique(groups):
        colour = palette.rule if group < 0 else CLASS_COLOURS[group % len(CLASS_COLOURS)]
        marker = MARKERS[(group + group // len(CLASS_COLOURS)) % len(MARKERS)]
        axes.scatter(*places[groups == group].T, s=18, color=colour, marker=marker, linewidths=0, alpha=0.75)
    box = {"facecolor": palette.panel, "edgecolor": "none", "alpha": 0.75, "boxstyle": "round,pad=0.15"}
    for group in np.unique(groups[groups >= 0])[:30]:
        axes.text(
            *np.median(places[groups == group], axis=0),
            str(group) if names is None else shortened(names[group], 24),
            ha="center",
            va="center",
            weight="bold",
            size=13,
            color=palette.ink,
            bbox=box,
            parse_math=False,
        )
    axes.set(xticks=[], yticks=[])
    axes.spines["bottom"].set_visible(False)
    axes.grid(visible=False)


def shortened(name: str, most: int) -> str:
    """`name`, cut to `most` characters with an ellipsis where it is longer."""
    return name if len(name) <= most else f"{name[: most - 1]}\u2026"


def blank(width: float, height: float, palette: Palette = PAGE) -> tuple[Any, Any]:
    """(figure, axes) of Matplotlib without a window; width and height in inches, 72 units of the SVG each."""
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(palette.rule)
    axes.grid(axis="y", color=palette.rule, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", colors=palette.ink, length=0, labelsize=9)
    axes.xaxis.label.set_color(palette.ink)
    axes.yaxis.label.set_color(palette.ink)
    return figure, axes


def as_svg(figure: Any, label: str) -> str:
    """A figure in the colours `PAGE` as inline SVG, its text kept as text, its ids its own, its colours the page's."""
    import matplotlib

    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": label}), _any_script():
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    svg = file.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    box = re.search(r'viewBox="[^"]*"', svg)[0]
    # A page has many charts, and what one defines must not answer for another.
    own = f"c{zlib.crc32(label.encode()):08x}-"
    svg = re.sub(r'\bid="', f'id="{own}', svg).replace('href="#', f'href="#{own}').replace("url(#", f"url(#{own}")
    for colour, ours in _STAND_INS.items():
        svg = svg.replace(colour, ours)
    head = f'<svg {box} role="img" aria-label="{html.escape(label)}">'
    return re.sub(r"<svg[^>]*>", lambda _: head, svg, count=1)


def as_png(figure: Any) -> bytes:
    """A figure in the colours `LIGHT` as a PNG file on white, 144 pixels an inch."""
    file = io.BytesIO()
    with _any_script():
        figure.savefig(file, format="png", dpi=144, facecolor="white", metadata={"Software": None})
    return file.getvalue()


@contextlib.contextmanager
def _any_script() -> Iterator[None]:
    # Names may be of any language: Matplotlib draws a box for what its font lacks, and a page has fonts of its own.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        yield
