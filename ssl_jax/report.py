"""One self-contained HTML page about a run, drawn from its run folder, whatever the method."""

import html
import importlib.util
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ssl_jax import (
    archive,
    charts,
    log,
    page,
    report_classification,
    report_curves,
    report_pictures,
    report_translation,
    types,
)

_ROW_NOTES = {
    "raw_pixels": "the image's own pixels, no network at all: what must be beaten",
    "untrained": "the same network before its first update: what the architecture alone gives",
}


def write(folder: pathlib.Path) -> pathlib.Path:
    """Writes `report.html` about the run in `folder`, pictures inside, and returns its path.

    Missing files are left out. Arrays that it draws: `eval/<name>/map/<row>` float [n, 2] with `eval/<name>/map_labels`
    int [n] (-1 unknown), and, if there, `eval/<name>/map_explained/<row>` [2], the shares of variance that the two axes
    hold, and `eval/<name>/map_classes`, the class names; and `eval/<name>/confusion` int [k, k] (rows the true class,
    columns the predicted one) with `eval/<name>/confusion_classes`, the class names. Entries of `summary.json` of its
    own table: those of `log.table`, of `report_classification.section` and of `report_translation.section`.

    Raises UsageError for a folder that holds none of these or if matplotlib is missing, RunError for a damaged file or
    a page that cannot be written.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise types.UsageError("a report needs matplotlib: pip install matplotlib")
    try:
        text = _page(folder)
        text.encode()
    # A value of another kind than a run writes there, found wherever it is first used.
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise types.RunError(
            f"{folder} is damaged ({type(error).__name__}: {reason}): its files do not hold what a run writes there"
        ) from error
    path = folder / "report.html"
    log.replace(path, text)
    return path


def _page(folder: pathlib.Path) -> str:
    config, summary = _read_json(folder / "config.json"), _read_json(folder / "summary.json")
    series, arrays, pictures = _series(folder), _read_arrays(folder), report_pictures.read(folder)
    if not (config or summary or series or arrays or pictures):
        raise types.UsageError(f"{folder} is no run folder: it holds no config.json, metrics.jsonl or summary.json")
    title = _title(config, folder)
    sections = [
        _alarms(summary),
        f"<header><h1>{_text(title)}</h1>{_facts(config, summary, folder)}</header>",
        _results(summary),
        report_classification.section(summary),
        report_translation.section(summary),
        charts.maps(arrays),
        charts.confusion(arrays),
        report_curves.curves(series),
        report_pictures.section(
            pictures, steps_per_epoch=summary["steps_per_epoch"] if "steps_per_epoch" in summary else None
        ),
        _numbers(summary),
        _details("The config of this run", f"<pre>{_text(_outline(config))}</pre>") if config else "",
        _environment(summary),
    ]
    body = "\n".join(section for section in sections if section)
    return page.whole(title, body, styles=(report_pictures.STYLE,))


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise _damaged(path, error) from None


def _damaged(path: pathlib.Path, fault: object) -> types.RunError:
    return types.RunError(f"{path} is damaged ({fault}): move it away and write the report again")


def _series(folder: pathlib.Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(epochs, values) by name, both [points], of every finite scalar."""
    points: dict[str, list[tuple[float, float]]] = {}
    for line in log.read_metrics(folder):
        for name, value in line.items():
            if name.startswith(("train/", "eval/")) and isinstance(value, int | float):
                if "epoch" not in line:
                    raise _damaged(folder / "metrics.jsonl", f"no epoch on the line of step {line['step']}")
                points.setdefault(name, []).append((line["epoch"], value))
    return {name: tuple(np.array(found, float).T) for name, found in points.items()}


def _read_arrays(folder: pathlib.Path) -> dict[str, np.ndarray]:
    path = folder / "arrays.npz"
    if not path.exists():
        return {}
    try:
        return archive.read(path)
    except ValueError as error:
        raise _damaged(path, error) from None


def _title(config: Mapping[str, Any], folder: pathlib.Path) -> str:
    method = config["method"]["type"].rpartition(".")[2] if "method" in config else ""
    data = _data(config["data"]) if "data" in config else ""
    return " on ".join(part for part in (method, data) if part) or folder.name


def _data(section: Any) -> str:
    """What a data section reads: the first `name` with its `split`, or two of them, else the last part of its type."""
    if not isinstance(section, Mapping):
        return ""
    if {"name_a", "name_b", "split_a", "split_b"} <= section.keys():
        return " and ".join(f"{section[f'name_{side}']} ({section[f'split_{side}']})" for side in "ab")
    if "name" in section:
        return f"{section['name']} ({section['split']})" if "split" in section else str(section["name"])
    inner = next((text for text in map(_data, section.values()) if text), "")
    return inner or (section["type"].rpartition(".")[2] if "type" in section else "")


def _facts(config: Mapping[str, Any], summary: Mapping[str, Any], folder: pathlib.Path) -> str:
    facts = []
    if "method" in config:
        facts.append(f"method <code>{_text(config['method']['type'])}</code>")
    if "step" in summary:
        epochs = summary["step"] / summary["steps_per_epoch"]
        facts.append(f"{summary['step']:,} of {summary['total_steps']:,} steps ({epochs:.4g} epochs)")
        facts.append(f"batch {_text(summary['batch_size'])}")
        facts.append(f"{_text(summary['devices'])} &times; {_text(summary['device_kind'])}")
        facts.append(f"{log.duration(summary['wall_seconds'])} of wall time")
        facts.append(f"seed {_text(summary['seed'])}")
        facts.append(f"commit <code>{_text((summary['commit'] or 'unknown')[:12])}</code>")
    facts.append(f"folder <code>{_text(folder.name)}</code>")
    lead = _lead(*log.table(summary))
    return (f'<p class="lead">{_text(lead)}</p>' if lead else "") + f'<p class="soft">{" &middot; ".join(facts)}</p>'


def _lead(rows: Sequence[str], columns: Sequence[log.Column]) -> str:
    """The page's first sentence: the best trained network beside what it must beat, at the fewest labels."""
    if not columns:
        return ""
    fewest, accuracies = columns[0], columns[0].accuracies
    trained = [row for row in rows if row in accuracies and row not in _ROW_NOTES]
    rivals = [row for row in rows if row in accuracies and row in _ROW_NOTES]
    if not (trained and rivals):
        return ""
    best = max(trained, key=lambda row: accuracies[row])
    words = {"raw_pixels": "raw pixels", "untrained": "the untrained network"}
    against = " and ".join(f"{accuracies[row]:.1%} from {words[row]}" for row in rivals)
    setting = "By nearest neighbours" if fewest.name == "knn" else f"With {fewest.head} a class"
    return (
        f"{setting}, {accuracies[best]:.1%} of the test images are classified rightly from the "
        f"features of {best}, against {against}."
    )


def _alarms(summary: Mapping[str, Any]) -> str:
    if not summary.get("alarms"):
        return ""
    items = "".join(f"<li>Step {alarm['step']:,}: {_text(alarm['sentence'])}</li>" for alarm in summary["alarms"])
    return f'<section class="alarms" role="alert"><h2>Something went wrong in this run</h2><ul>{items}</ul></section>'


def _results(summary: Mapping[str, Any]) -> str:
    rows, columns = log.table(summary)
    if not rows:
        return ""
    tops = [max(column.accuracies.values(), default=None) for column in columns]
    body = ""
    for row in rows:
        body += f'<tr><th scope="row">{_text(row)}</th>'
        for top, column in zip(tops, columns, strict=True):
            if row not in column.accuracies:
                body += "<td>&ndash;</td>"
                continue
            spread = f" <small>&plusmn; {column.spreads[row]:.3f}</small>" if row in column.spreads else ""
            best = ' class="best"' if column.accuracies[row] == top else ""
            body += f"<td{best}>{column.accuracies[row]:.3f}{spread}</td>"
        body += "</tr>"
    heads = "".join(f'<th scope="col">{_text(column.head)}</th>' for column in columns)
    notes = [f"<em>{_text(row)}</em> is {_ROW_NOTES[row]}." for row in rows if row in _ROW_NOTES]
    caption = (
        "Accuracy on the test images. A linear classifier is trained on the features with the given number of labelled "
        "images a class; its penalty alone (in a grid its learning rate too) was chosen, for every row alike, on a "
        "held-out share (by "
        "default a fifth) of the labelled training images; &plusmn; is the spread over draws of the labelled images, "
        "with one encoder. kNN asks the most similar training images and trains nothing. " + " ".join(notes)
    )
    table = (
        f'<div class="wide"><table><caption>{caption}</caption><thead><tr><th scope="col">representation</th>{heads}'
        f"</tr></thead><tbody>{body}</tbody></table></div>"
    )
    return f"<section><h2>What the features are worth</h2>{table}{report_curves.accuracies(rows, columns)}</section>"


def _numbers(summary: Mapping[str, Any]) -> str:
    if not summary.get("last"):
        return ""
    rows = ""
    for name, value in sorted(summary["last"].items()):
        best = summary["best"].get(name)
        ended = f"{best['value']:.5g} <small>at step {best['step']:,}</small>" if best else "&ndash;"
        rows += f'<tr><th scope="row">{_text(name)}</th><td>{value:.5g}</td><td>{ended}</td></tr>'
    heads = '<th scope="col">scalar</th><th scope="col">last</th><th scope="col">best</th>'
    return _details(
        "Every number: last and best",
        f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>',
    )


def _environment(summary: Mapping[str, Any]) -> str:
    if "versions" not in summary:
        return ""
    facts = {
        "device": f"{summary['devices']} of {summary['device_kind']} ({summary['platform']})",
        "machine": summary["machine"],
        "processes": summary["processes"],
        "commit": summary["commit"] or "unknown",
        "python": summary["python"],
        **summary["versions"],
    }
    rows = "".join(f'<tr><th scope="row">{_text(name)}</th><td>{_text(fact)}</td></tr>' for name, fact in facts.items())
    return _details("Where it ran", f'<div class="wide"><table><tbody>{rows}</tbody></table></div>')


def _details(title: str, inner: str) -> str:
    return f"<details><summary>{_text(title)}</summary>{inner}</details>"


def _outline(value: Any, indent: int = 0) -> str:
    """Nested settings as indented lines."""
    lines = []
    for name, inner in value.items():
        if isinstance(inner, Mapping) and inner:
            lines.append(f"{'  ' * indent}{name}:\n{_outline(inner, indent + 1)}")
        else:
            lines.append(f"{'  ' * indent}{name}: {json.dumps(inner, ensure_ascii=False)}")
    return "\n".join(lines)


def _text(value: Any) -> str:
    return html.escape(str(value))
