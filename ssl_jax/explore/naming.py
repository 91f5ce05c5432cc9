"""The names that a person gives to clusters: the file to write them into, and the way back."""

import csv
import io
import pathlib
import re
from collections.abc import Sequence

import numpy as np

from ssl_jax.explore.subject import Subject, as_csv
from ssl_jax.types import UsageError

NAMES_FILE = "cluster_names.csv"
HEADER = ("cluster", "name", "images", "central_image", "most_common_class")


def to_fill_in(subject: Subject, central: Sequence[np.ndarray], given: Sequence[str]) -> str:
    """The file with the names so far, for a person to fill in; arguments as of `read`."""
    lines = [list(HEADER)]
    for group, rows in enumerate(central):
        lines.append([group, given[group], len(rows), subject.names[rows[0]], most_common(subject, rows, "{}")])
    return as_csv(lines)


def read(path: pathlib.Path, subject: Subject, central: Sequence[np.ndarray]) -> list[str]:
    """The names that a person wrote into `cluster_names.csv`, by cluster; "" where there is none.

    Args:
        path: the file.
        subject: what was explored.
        central: the rows of each cluster, the nearest to its centre first.

    Raises:
        UsageError: for a file that is not there or not of this shape, or that names clusters of another exploration.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read --names={path}: {getattr(error, 'strerror', None) or error}") from error
    try:
        rows = _table(text)
    except csv.Error as error:
        raise UsageError(f"--names={path} is no table ({error}): fill in {NAMES_FILE}") from error
    if len(rows) < 2 or not {"cluster", "name", "central_image"} <= set(rows[0]):
        raise UsageError(f"--names={path}: no rows under cluster, name and central_image; fill in {NAMES_FILE}")
    found = [""] * len(central)
    seen = set()
    for cells in rows[1:]:
        row = dict(zip(rows[0], [*cells, *[""] * len(rows[0])], strict=False))
        cluster = row["cluster"].strip()
        if not re.fullmatch("[0-9]{1,9}", cluster) or int(cluster) >= len(central) or int(cluster) in seen:
            twice = "twice" if cluster.isdecimal() and int(cluster) in seen else "here"
            told = f"they are 0 to {len(central) - 1}, each once"
            raise UsageError(f"--names={path}: no cluster {cluster!r} {twice}, {told}")
        seen.add(int(cluster))
        here = subject.names[central[int(cluster)][0]]
        if row["central_image"] != here:
            raise UsageError(
                f"--names={path}: cluster {cluster} is around {row['central_image']!r} there and around {here!r} here: "
                "the names are of another exploration; give the same run, data, --clusters and --seed"
            )
        found[int(cluster)] = row["name"].strip()
    return found


def holds_names(path: pathlib.Path) -> bool:
    """Whether a file is there in which a person may have written names: any that is not as it was made."""
    if not path.is_file():
        return False
    try:
        head, *rows = _table(path.read_text(encoding="utf-8-sig"))
    except (csv.Error, UnicodeDecodeError, ValueError):
        return True
    return tuple(head) != HEADER or any(len(row) != len(HEADER) or row[1] for row in rows)


def most_common(subject: Subject, rows: np.ndarray, form: str) -> str:
    """`form` filled in with the commonest class of some rows and its share; "" where none is labelled."""
    labels = subject.labels[rows]
    labels = labels[labels >= 0]
    if not len(labels) or not subject.class_names:
        return ""
    members = np.bincount(labels)
    return form.format(subject.class_names[int(members.argmax())], members.max() / len(labels))


def _table(text: str) -> list[list[str]]:
    # Spreadsheets of many countries write semicolons or tabs.
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    return [row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if any(row)]
