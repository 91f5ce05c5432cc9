"""The figures of a run's page with their captions, as inline SVG that follows the page's colours."""

import html
import io
import itertools
import math
import re
import zlib
from collections.abc import Mapping, Sequence
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

_NOTES = (
    (r"^train/cycle", "How far images are from their way there and back, over values in [-1, 1]."),
    (r"^train/identity", "How much a generator changes images of the domain that it makes, over values in [-1, 1]."),
    (r"^train/.*logit", "What the discriminator thinks of real images and of those made: the higher, the more real."),
    (r"^eval/.*margin", "How many standard deviations real images and those made lie apart for the discriminator."),
    (r"^train/.*loss", "What training makes small, averaged over the steps since the point before."),
    (r"^train/learning_rate", "The size of an update, as the schedule sets it."),
    (r"^train/accuracy", "The share of training images, as augmented, that were classified rightly while training."),
    (r"knn.*accuracy", "The share of test images that a vote of the most similar training images classifies rightly."),
    (r"accuracy_top5", "The share of test images whose class is among the five that the network holds likeliest."),
    (r"accuracy", "The share of test images that are classified rightly."),
    (r"macro_f1", "The F1 score, of precision and recall alike, as the mean over classes however large each is."),
    (r"calibration_error", "By how much the network's confidence differs from how often it is right."),
    (r"deviation", "How much the network's normalised output varies over images. Near 0 it has collapsed."),
    (r"^eval/.*psnr", "How close translations are to their true counterparts, in decibels; the higher the better."),
    (r"^eval/.*error_(ab|ba)", "How far translations are from their true counterparts, over pixels in [0, 1]."),
    (r"^eval/.*read_real", "The share of real images that a classifier of their domain takes for their class."),
    (r"^eval/.*read_", "The share of translations that a classifier of real images takes for their class."),
    (r"^eval/.*reconstruction", "How far an image is from its way there and back, a mean over pixels in [0, 1]."),
    (r"^eval/.*change", "How far translations are from their images, over pixels in [0, 1]; 0 for copies."),
    (r"^eval/.*identity", "How much a generator changes images of the domain that it makes; 0 leaves them alone."),
    (r"^eval/.*correlation", "Whether light stays light: 1 where it does, -1 where it becomes dark."),
    (r"^eval/.*checkerboard", "A pattern of two pixels, over what real images have of it: about 1 is healthy."),
    (r"^eval/.*separability", "How often the discriminator ranks a real image above one that was made: 0.5 is a draw."),
    (r"^eval/.*diversity", "How far apart pictures made are, over real ones; near 0 all of them are one."),
    (r"rank", "How many directions the features really use; a fall to a few is a (partial) collapse."),
)
# Matplotlib knows no style sheet: it draws in these, and the colours of the page take their place afterwards.
_INK, _RULE, _PANEL = "#010203", "#010204", "#010205"
_SERIES = ("#010300", "#010301", "#010302", "#010303", "#010304")
_STAND_INS = {
    _INK: "currentColor",
    _RULE: "var(--rule)",
    _PANEL: "var(--panel)",
    **{colour: f"var(--series-{place})" for place, colour in enumerate(_SERIES)},
}
_CLASS_COLOURS = (
    "#e69f00", "#56b4e9", "#009e73", "#c9b400", "#3a86c8", "#d55e00", "#cc79a7", "#8a8a8a", "#8c6bb1", "#a6761d",
)  # fmt: skip
_MARKERS = "os^DvPXp*h"
_COUNTED_CLASSES, _NAMED_CLASSES = 20, 50


def accuracies(rows: Sequence[str], columns: Sequence[log.Column]) -> str:
    """Accuracy against labelled images a class, a line for each of `rows`; "" for fewer than two such columns."""
    columns = [column for column in columns if column.name != "knn"]
    if len(columns) < 2:
        return ""
    figure, axes = _figure(7.2, 3.6)
    places = np.arange(len(columns))
    for row, (colour, dashes), marker in zip(rows, _lines(rows), itertools.cycle(_MARKERS), strict=False):
        values = np.array([column.accuracies[row] if row in column.accuracies else math.nan for column in columns])
        errors = np.array([column.spreads[row] if row in column.spreads else 0.0 for column in columns])
        axes.errorbar(
            places,
            values,
            yerr=errors,
            color=colour,
            marker=marker,
            linestyle=dashes,
            linewidth=2,
            capsize=3,
            label=row,
        )
    axes.set_xticks(places, [column.name.removeprefix("labels_") for column in columns])
    axes.set_xlabel("labelled images a class")
    axes.set_ylabel("accuracy")
    axes.legend(frameon=False, labelcolor=_INK, loc="lower right")
    svg = _svg(figure, f"Accuracy against labelled images a class, for {', '.join(rows)}")
    note = "The same numbers as lines; bars are one standard deviation. Further left, fewer labels were spent."
    return f'<figure class="panel">{svg}<figcaption>{note}</figcaption></figure>'


def _lines(rows: Sequence[str]) -> list[tuple[str, str]]:
    """(colour, dashes) of each row: what must be beaten looks the same on every page."""
    given = {"raw_pixels": (_SERIES[2], ":"), "untrained": (_SERIES[1], "--")}
    others = itertools.cycle((_SERIES[0], *_SERIES[3:]))
    return [given[row] if row in given else (next(others), "-") for row in rows]


def curves(series: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> str:
    """The section of curves from (epochs, values), both [points], by name; "" where there is none to draw.

    `<stem>/healthy` is no curve but a level in the charts of its neighbours' deviations.
    """
    parts = []
    for prefix, heading in (("train/", "Training"), ("eval/", "Evaluation while training")):
        panels = [
            _curve(name, *series[name], healthy=_healthy(name, series))
            for name in series
            if name.startswith(prefix) and len(series[name][0]) > 1 and not name.endswith("/healthy")
        ]
        if panels:
            parts.append(f'<h3>{heading}</h3><div class="panels">{"".join(panels)}</div>')
    return f"<section><h2>Curves</h2>{''.join(parts)}</section>" if parts else ""


def _healthy(name: str, series: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> float | None:
    level = f"{name.rpartition('/')[0]}/healthy"
    drawn = re.search("deviation|std|spread", name.rpartition("/")[2]) and level in series
    return float(series[level][1][-1]) if drawn else None


def _curve(name: str, epochs: np.ndarray, values: np.ndarray, *, healthy: float | None) -> str:
    figure, axes = _figure(3.9, 2.3)
    window = len(values) // 40
    if window > 2:
        stride = math.ceil(len(values) / 1000)
        axes.plot(epochs[::stride], values[::stride], color=_SERIES[0], linewidth=0.8, alpha=0.35)
        smooth = np.convolve(values, np.ones(window) / window, mode="valid")
        middle = epochs[window // 2 :][: len(smooth)]
        axes.plot(middle[::stride], smooth[::stride], color=_SERIES[0], linewidth=2)
    else:
        axes.plot(
            epochs, values, color=_SERIES[0], linewidth=2, marker="o" if len(values) < 30 else None, markersize=3.5
        )
    if healthy is not None:
        axes.axhline(healthy, color=_SERIES[1], linestyle="--", linewidth=1.5)
        axes.set_ylim(bottom=min(0.0, float(values.min())))
    axes.set_xlabel("epoch")
    note = next((note for pattern, note in _NOTES if re.search(pattern, name)), "")
    note += " Dashed: the level of a healthy network." if healthy is not None else ""
    svg = _svg(figure, f"{name} against epoch, last value {values[-1]:.4g}")
    return f"<figure><h3>{html.escape(name)}</h3>{svg}<figcaption>Last {values[-1]:.4g}. {note}</figcaption></figure>"


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
    names = arrays[f"{stem}/map_classes"] if f"{stem}/map_classes" in arrays else None
    figure, axes = _figure(3.9, 3.9)
    for label in np.unique(labels):
        chosen = places[labels == label]
        colour = _RULE if label < 0 else _CLASS_COLOURS[label % len(_CLASS_COLOURS)]
        marker = _MARKERS[(label + label // len(_CLASS_COLOURS)) % len(_MARKERS)]
        axes.scatter(*chosen.T, s=18, color=colour, marker=marker, linewidths=0, alpha=0.75)
    for label in np.unique(labels[labels >= 0])[:30]:
        box = {"facecolor": _PANEL, "edgecolor": "none", "alpha": 0.75, "boxstyle": "round,pad=0.15"}
        name = str(label) if names is None else str(names[label])
        axes.text(
            *np.median(places[labels == label], axis=0),
            name,
            ha="center",
            va="center",
            weight="bold",
            size=13,
            color=_INK,
            bbox=box,
        )
    axes.set(xticks=[], yticks=[])
    axes.spines["bottom"].set_visible(False)
    axes.grid(visible=False)
    shares = f"{stem}/map_explained/{row}"
    held = f"The two axes hold {float(np.sum(arrays[shares])):.0%} of the variance." if shares in arrays else ""
    svg = _svg(figure, f"Map of the features of {row} in {stem}, coloured by class")
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
    figure, axes = _figure(7.2, min(7.2, 1.6 + 0.8 * classes))
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
            axes.add_patch(matplotlib.patches.Rectangle(place, 0.96, 0.96, color=_SERIES[0], alpha=shade, linewidth=0))
            if classes <= _COUNTED_CLASSES:
                ink = _PANEL if shade > 0.7 else _INK
                axes.text(column, row, f"{counts[row, column]}", ha="center", va="center", color=ink, size=9)
        size = min(9.0, 300 / classes)
        shown = [name if len(name) <= 18 else f"{name[:17]}\u2026" for name in names]
        upright = max(map(len, shown)) * size * 0.6 > 400 / classes
        axes.set_xticks(range(classes), shown, size=size, rotation=90 if upright else 0, parse_math=False)
        axes.set_yticks(range(classes), shown, size=size, parse_math=False)
        axes.set(xlabel="predicted class", ylabel="true class")
    axes.set(xlim=(-0.5, classes - 0.5), ylim=(classes - 0.5, -0.5), aspect="equal")
    svg = _svg(figure, f"Confusion matrix of {stem}, {classes} classes")
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


def _figure(width: float, height: float) -> tuple[Any, Any]:
    """A chart without a window, in the page's stand-in colours; width and height in inches, 72 of its units each."""
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_RULE)
    axes.grid(axis="y", color=_RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_INK, length=0, labelsize=9)
    axes.xaxis.label.set_color(_INK)
    axes.yaxis.label.set_color(_INK)
    return figure, axes


def _svg(figure: Any, label: str) -> str:
    """The figure as inline SVG, its text kept as text, its ids its own, its colours those of the page."""
    import matplotlib

    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": label}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    svg = file.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    box = re.search(r'viewBox="[^"]*"', svg)[0]
    # A page has many charts, and what one defines must not answer for another.
    own = f"c{zlib.crc32(label.encode()):08x}-"
    svg = re.sub(r'\bid="', f'id="{own}', svg).replace('href="#', f'href="#{own}').replace("url(#", f"url(#{own}")
    for colour, ours in _STAND_INS.items():
        svg = svg.replace(colour, ours)
    return re.sub(r"<svg[^>]*>", f'<svg {box} role="img" aria-label="{html.escape(label)}">', svg, count=1)
