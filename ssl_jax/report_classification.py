"""The section of a run's page about how well a network classifies."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from ssl_jax import log

_DASH = "&ndash;"


def section(summary: Mapping[str, Any]) -> str:
    """A row for each entry of `summary` that `evaluators.classification` made, and its classes; "" without any.

    An entry is one that holds `accuracy`, `accuracy_interval` [low, high], `macro_f1` and `classes` (`precision`,
    `recall`, `f1`, `support` by class name); `macro_f1_interval`, `accuracy_top5`, `calibration_error`, `examples` and
    `level` are shown where they are known.
    """
    entries = log.scores(summary)
    if not entries:
        return ""
    rows = [
        (
            name,
            _share(entry, "accuracy"),
            _share(entry, "accuracy_top5"),
            _share(entry, "macro_f1"),
            _share(entry, "calibration_error"),
            _count(entry, "examples"),
        )
        for name, entry in entries.items()
    ]
    heads = ("images of", "accuracy", "top-5 accuracy", "macro F1", "calibration error", "images")
    levels = sorted({f"{100 * entry['level']:.4g}%" for entry in entries.values() if _known(entry, "level")})
    caption = (
        "The classifier's answers on labelled images. "
        f"Small: the interval that holds {' or '.join(levels) or 'most'} of the scores when these images are drawn "
        "again (a bootstrap); what another training would give is not in it. Macro F1 is the mean over "
        "classes of the harmonic mean of precision and recall, each class counting alike. The calibration error is by "
        "how much the network's confidence differs from how often it is right."
    )
    parts = [_table(heads, rows, caption=caption)]
    for name, entry in entries.items():
        each = [
            (label, *(_share(scores, key) for key in ("precision", "recall", "f1")), _count(scores, "support"))
            for label, scores in entry["classes"].items()
        ]
        table = _table(("class", "precision", "recall", "F1", "images"), each)
        parts.append(f"<details><summary>Every class of {_text(name)}</summary>{table}</details>")
    return f"<section><h2>How well it classifies</h2>{''.join(parts)}</section>"


def _known(entry: Mapping[str, Any], key: str) -> bool:
    # What was not finite is null in the file.
    return key in entry and entry[key] is not None


def _share(entry: Mapping[str, Any], key: str) -> str:
    if not _known(entry, key):
        return _DASH
    interval = f"{key}_interval"
    if not _known(entry, interval):
        return f"{entry[key]:.3f}"
    low, high = entry[interval]
    return f"{entry[key]:.3f} <small>{low:.3f} to {high:.3f}</small>"


def _count(entry: Mapping[str, Any], key: str) -> str:
    return f"{entry[key]:,}" if _known(entry, key) else _DASH


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str = "") -> str:
    """A table whose cells are HTML but for the first of each row, which is text."""
    body = "".join(
        f'<tr><th scope="row">{_text(name)}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
        for name, *cells in rows
    )
    top = "".join(f'<th scope="col">{head}</th>' for head in heads)
    told = f"<caption>{caption}</caption>" if caption else ""
    return f'<div class="wide"><table>{told}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _text(value: Any) -> str:
    return html.escape(str(value))
