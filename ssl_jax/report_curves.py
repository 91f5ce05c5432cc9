"""The figures of a run's page that are lines: accuracy against labels, and scalars over training."""

import html
import itertools
import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from ssl_jax import charts, log

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


def accuracies(rows: Sequence[str], columns: Sequence[log.Column]) -> str:
    """Accuracy against labelled images a class, a line for each of `rows`; "" for fewer than two such columns."""
    columns = [column for column in columns if column.name != "knn"]
    if len(columns) < 2:
        return ""
    figure, axes = charts.blank(7.2, 3.6)
    places = np.arange(len(columns))
    for row, (colour, dashes), marker in zip(rows, _lines(rows), itertools.cycle(charts.MARKERS), strict=False):
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
    axes.legend(frameon=False, labelcolor=charts.PAGE.ink, loc="lower right")
    svg = charts.as_svg(figure, f"Accuracy against labelled images a class, for {', '.join(rows)}")
    note = "The same numbers as lines; bars are one standard deviation. Further left, fewer labels were spent."
    return f'<figure class="panel">{svg}<figcaption>{note}</figcaption></figure>'


def _lines(rows: Sequence[str]) -> list[tuple[str, str]]:
    """(colour, dashes) of each row: what must be beaten looks the same on every page."""
    given = {"raw_pixels": (charts.PAGE.series[2], ":"), "untrained": (charts.PAGE.series[1], "--")}
    others = itertools.cycle((charts.PAGE.series[0], *charts.PAGE.series[3:]))
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
    figure, axes = charts.blank(3.9, 2.3)
    window = len(values) // 40
    if window > 2:
        stride = math.ceil(len(values) / 1000)
        axes.plot(epochs[::stride], values[::stride], color=charts.PAGE.series[0], linewidth=0.8, alpha=0.35)
        smooth = np.convolve(values, np.ones(window) / window, mode="valid")
        middle = epochs[window // 2 :][: len(smooth)]
        axes.plot(middle[::stride], smooth[::stride], color=charts.PAGE.series[0], linewidth=2)
    else:
        axes.plot(
            epochs,
            values,
            color=charts.PAGE.series[0],
            linewidth=2,
            marker="o" if len(values) < 30 else None,
            markersize=3.5,
        )
    if healthy is not None:
        axes.axhline(healthy, color=charts.PAGE.series[1], linestyle="--", linewidth=1.5)
        axes.set_ylim(bottom=min(0.0, float(values.min())))
    axes.set_xlabel("epoch")
    note = next((note for pattern, note in _NOTES if re.search(pattern, name)), "")
    note += " Dashed: the level of a healthy network." if healthy is not None else ""
    svg = charts.as_svg(figure, f"{name} against epoch, last value {values[-1]:.4g}")
    return f"<figure><h3>{html.escape(name)}</h3>{svg}<figcaption>Last {values[-1]:.4g}. {note}</figcaption></figure>"
