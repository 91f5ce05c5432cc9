"""A comparison of runs for people: a page with curves, and one table as text, CSV and LaTeX."""

import csv
import dataclasses
import html
import importlib.util
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ssl_jax import charts, comparison, figures, log, page, types

STYLE = """\
.compared th, .compared td { vertical-align: top; white-space: normal; overflow-wrap: break-word; min-width: 7rem;
  max-width: 22rem; }
.axis { margin: 0 .35rem 0 0; } .axis + label { margin-right: 1.2rem; }
.over { display: none; margin: .8rem 0; }
#axis-steps:checked ~ .over-steps, #axis-epochs:checked ~ .over-epochs, #axis-time:checked ~ .over-time {
  display: block; }
"""

_CELL_CHARACTERS = 40
_ARROWS = {"largest": "\N{UPWARDS ARROW}", "smallest": "\N{DOWNWARDS ARROW}"}
_NOTHING = "\N{EN DASH}"
_AXES = {"steps": "steps", "epochs": "epochs", "time": "wall time"}
_TEX = {
    **{sign: f"\\{sign}" for sign in "_%&#${}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    _ARROWS["largest"]: r"$\uparrow$",
    _ARROWS["smallest"]: r"$\downarrow$",
    _NOTHING: "--",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{HORIZONTAL ELLIPSIS}": r"\ldots{}",
}


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the table: what it is about, a cell for each run, and which cells are the best ones."""

    head: str
    cells: tuple[str, ...]
    winners: frozenset[int] = frozenset()


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A scalar of all runs over one axis.

    Attributes:
        name: of the scalar.
        axis: "steps", "epochs" or "time".
        file: a name for its PNG that no other drawing of the comparison has.
        figure: as SVG and PNG.
    """

    name: str
    axis: str
    file: str
    figure: figures.Figure


def parts(compared: comparison.Comparison) -> dict[str, list[Row]]:
    """The table in three parts by heading: what the runs are, what differs between their configs, and their numbers."""
    heads = list(compared.runs[0].facts)
    numbers = []
    for number in compared.numbers:
        cells = []
        for value, step in zip(number.values, number.steps, strict=True):
            at = "" if step is None else f" (step {step:,})"
            cells.append(_NOTHING if value is None else f"{value:.5g}{at}")
        arrow = f" {_ARROWS[number.direction]}" if number.direction else ""
        numbers.append(Row(f"{number.name}, {number.kind}{arrow}", tuple(cells), number.winners))
    return {
        "Runs": [Row(head, tuple(run.facts[head] for run in compared.runs)) for head in heads],
        "Config": [Row(name, cells) for name, cells in compared.differences.items()],
        "Numbers": numbers,
    }


def as_text(compared: comparison.Comparison) -> str:
    """The whole table in aligned columns, a `*` behind the best run of a number; long cells are cut short."""
    lines = [["", *(run.label for run in compared.runs)]]
    for rows in parts(compared).values():
        for row in rows:
            marks = ["*" if place in row.winners else "" for place in range(len(row.cells))]
            cells = [_short(cell) + mark for cell, mark in zip(row.cells, marks, strict=True)]
            lines.append([row.head, *cells])
    return log.aligned(lines)


def as_csv(compared: comparison.Comparison) -> str:
    """A line a run, with every digit: what it is, the keys that differ, and each scalar's last, best and best step."""
    lines = []
    for place, run in enumerate(compared.runs):
        line = {"run": run.label, "folder": str(run.folder), **run.facts, "seconds": run.seconds}
        line |= {name: cells[place] for name, cells in compared.differences.items()}
        for number in compared.numbers:
            line[f"{number.name} ({number.kind})"] = number.values[place]
            if number.kind == "best":
                line[f"{number.name} (best step)"] = number.steps[place]
        lines.append(line)
    file = io.StringIO()
    writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue()


def as_latex(compared: comparison.Comparison) -> str:
    """The whole table as a `tabular` that needs no package, the best run of each number in bold; long cells are cut."""
    lines = [f"\\begin{{tabular}}{{l{'r' * len(compared.runs)}}}", "\\hline"]
    lines += [_tex_line("", [_tex(run.label) for run in compared.runs]), "\\hline"]
    for rows in parts(compared).values():
        for row in rows:
            cells = [_tex(_short(cell)) for cell in row.cells]
            bold = [f"\\textbf{{{cell}}}" if place in row.winners else cell for place, cell in enumerate(cells)]
            lines.append(_tex_line(row.head, bold))
        if rows:
            lines.append("\\hline")
    return "\n".join([*lines, "\\end{tabular}"]) + "\n"


def _tex_line(head, cells):
    return f"{_tex(head)} & {' & '.join(cells)} \\\\"


def _tex(text):
    plain = "".join(_TEX.get(sign, sign) for sign in " ".join(text.split()))
    return re.sub(r"^-(?=\d)", "$-$", plain)


def _short(cell):
    return charts.shortened(cell, _CELL_CHARACTERS)


def drawings(compared: comparison.Comparison) -> Iterator[Drawing]:
    """Every scalar of which some run has two values or more, over steps, epochs and wall time, as `smoothed` leaves it.

    A run has one colour in all of them. `<stem>/healthy` is no curve but a level in the charts of its neighbours'
    deviations, where all runs have the same.

    Raises:
        UsageError: if matplotlib is missing.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise types.UsageError("curves need matplotlib: pip install matplotlib")
    names = [name for name in dict.fromkeys(number.name for number in compared.numbers) if _drawn(name, compared)]
    taken: set[str] = set()
    for axis in _AXES:
        scale, x_label = _scale(axis, compared)
        for name in names:
            series = {run.label: _points(run, name, axis, scale) for run in compared.runs}
            if not any(len(x) > 1 for x, _ in series.values()):
                continue
            file = stem = f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', name)}-{axis}"
            while file in taken:
                file += "_"
            taken.add(file)
            longest = max(min(len(run.label), _CELL_CHARACTERS) for run in compared.runs)
            columns = max(1, int(280 / (5.2 * longest + 40)))
            figure = figures.lines(
                series,
                label=f"{name} of {len(compared.runs)} runs over {_AXES[axis]}" + file.removeprefix(stem),
                x_label=x_label,
                level=_healthy(name, compared),
                width=3.9,
                height=2.2 + 0.2 * math.ceil(len(compared.runs) / columns),
            )
            yield Drawing(name, axis, f"{file}.png", figure)


def _drawn(name, compared):
    found = any(name in run.curves and len(run.curves[name].values) > 1 for run in compared.runs)
    return found and not name.endswith("/healthy")


def _points(run, name, axis, scale):
    if name not in run.curves:
        return np.empty(0), np.empty(0)
    curve = comparison.smoothed(run.curves[name])
    x = {"steps": curve.steps, "epochs": curve.epochs, "time": curve.seconds}[axis]
    known = np.isfinite(x)
    return x[known] / scale, curve.values[known]


def _scale(axis, compared):
    if axis == "epochs":
        return 1.0, "epoch"
    if axis == "steps":
        steps = max((curve.steps[-1] for run in compared.runs for curve in run.curves.values()), default=0)
        return (1000.0, "thousands of steps") if steps > 9999 else (1.0, "step")
    longest = max(run.seconds for run in compared.runs)
    unit, scale = next(
        (each for each in (("hours", 3600.0), ("minutes", 60.0)) if longest > 2 * each[1]), ("seconds", 1.0)
    )
    return scale, f"wall time ({unit})"


def _healthy(name: str, compared: comparison.Comparison) -> Mapping[str, float] | None:
    stem, _, leaf = name.rpartition("/")
    levels = {run.last[f"{stem}/healthy"] for run in compared.runs if f"{stem}/healthy" in run.last}
    return {"healthy": levels.pop()} if len(levels) == 1 and re.search("deviation|std|spread", leaf) else None


def write(compared: comparison.Comparison, drawn: Sequence[Drawing]) -> str:
    """The page: what the runs are, what differs, the curves, and all numbers with the best ones marked."""
    labels = [run.label for run in compared.runs]
    title = " and ".join(labels) if len(labels) == 2 else f"{len(labels)} runs"
    tables = parts(compared)
    unfinished = [
        f"{_text(run.label)}: {_text(run.facts['state'])}." for run in compared.runs if run.facts["state"] != "finished"
    ]
    note = f'<p class="lead">Not finished: {" ".join(unfinished)}</p>' if unfinished else ""
    arrows = (
        "The last value of every scalar, and of those that have a direction (\N{UPWARDS ARROW} the largest is the best "
        "one, \N{DOWNWARDS ARROW} the smallest) the best one with its step, unless that is the last one "
        "in all runs. The best run is in bold."
    )
    keys = "What is not the same in all configs. Everything else is."
    body = [
        f"<header><h1>{_text(title)}</h1>{note}</header>",
        _section("Runs", tables["Runs"], labels, ""),
        _section("What differs between the configs", tables["Config"], labels, keys)
        or "<section><h2>What differs between the configs</h2><p>Nothing: the configs are the same.</p></section>",
        _curves(drawn),
        _section("Numbers", tables["Numbers"], labels, arrows),
    ]
    return page.whole(title, "\n".join(section for section in body if section), styles=[STYLE])


def _section(heading, rows, labels, caption):
    if not rows:
        return ""
    heads = "".join(f'<th scope="col">{_text(label)}</th>' for label in labels)
    lines = ""
    for row in rows:
        lines += f'<tr><th scope="row">{_breakable(row.head)}</th>'
        for place, cell in enumerate(row.cells):
            best = ' class="best"' if place in row.winners else ""
            lines += f"<td{best}>{_text(cell)}</td>"
        lines += "</tr>"
    return (
        f'<section><h2>{heading}</h2><div class="wide"><table class="compared">'
        + (f"<caption>{caption}</caption>" if caption else "")
        + f"<thead><tr><td></td>{heads}</tr></thead><tbody>{lines}</tbody></table></div></section>"
    )


def _curves(drawn):
    axes = [axis for axis in _AXES if any(drawing.axis == axis for drawing in drawn)]
    if not axes:
        return ""
    controls, panels = "", ""
    for axis in axes:
        checked = " checked" if axis == axes[0] else ""
        controls += f'<input class="axis" type="radio" name="axis" id="axis-{axis}"{checked}>'
        controls += f'<label for="axis-{axis}">over {_AXES[axis]}</label>'
        shown = [drawing for drawing in drawn if drawing.axis == axis]
        inner = "".join(f"<figure><h3>{_text(each.name)}</h3>{each.figure.svg}</figure>" for each in shown)
        panels += f'<div class="over over-{axis}"><div class="panels">{inner}</div></div>'
    note = '<p class="soft">Of 120 points or more, means over a fortieth of them are drawn.</p>'
    return f"<section><h2>Curves</h2>{controls}{panels}{note}</section>"


def _breakable(name):
    """A scalar's or key's name that a narrow column breaks between its words."""
    return re.sub(r"([/_.])(?=\w)", r"\1<wbr>", _text(name))


def _text(value):
    return html.escape(str(value))
