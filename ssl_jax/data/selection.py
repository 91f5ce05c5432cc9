"""Some records of a source, perhaps under other labels, and several sources as one; both are sources themselves."""

import pathlib
from typing import Any

import numpy as np

from ssl_jax import archive
from ssl_jax.types import UsageError


class Selection:
    """The records of a source at some rows, in that order; it pickles as long as its source does.

    Attributes:
        name, split, class_names, image_shape: as of the source.
        examples: how many rows there are.
    """

    def __init__(self, source: Any, rows: np.ndarray, labels: np.ndarray | None = None):
        """Args:
            source: a `source.Source`, or what behaves like one.
            rows: int [n] into it; a row may come several times.
            labels: int [n] that stand in for the source's own; None keeps those.

        Raises:
            UsageError: a row is not one of the source's, or there are no rows.
        """
        self._source, self._rows = source, np.asarray(rows, np.int64)
        self._labels = None if labels is None else np.asarray(labels, np.int32)
        if not len(self._rows) or self._rows.min() < 0 or self._rows.max() >= source.examples:
            raise UsageError(f"rows {self._rows[:3]}... are not all among the {source.examples} of {source.name!r}")
        self.name, self.split = source.name, source.split
        self.class_names, self.image_shape = source.class_names, source.image_shape
        self.examples = len(self._rows)

    def __len__(self) -> int:
        return self.examples

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.read(index)

    def read(self, index: int) -> dict[str, Any]:
        """See `source.Source.read`."""
        record = self._source.read(int(self._rows[index]))
        return record if self._labels is None else {**record, "label": int(self._labels[index])}

    def read_all(self) -> dict[str, np.ndarray]:
        """See `source.Source.read_all`."""
        return self.read_rows(np.arange(self.examples))

    def read_rows(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """See `source.Source.read_rows`."""
        arrays = self._source.read_rows(self._rows[rows])
        return arrays if self._labels is None else {**arrays, "label": self._labels[rows]}

    def labels(self) -> np.ndarray:
        """See `source.Source.labels`."""
        return self._source.labels()[self._rows] if self._labels is None else self._labels.copy()

    def describe(self, index: int) -> str:
        """See `source.Source.describe`."""
        return self._source.describe(int(self._rows[index]))

    @property
    def bytes_when_resident(self) -> int | None:
        """See `source.Source.bytes_when_resident`."""
        return None if None in self.image_shape else self.examples * int(np.prod(self.image_shape))


class Joined:
    """Two sources of one image shape, one after the other; classes, name and split are the first's."""

    def __init__(self, first: Any, second: Any):
        """Raises UsageError where the images differ in shape."""
        if first.image_shape != second.image_shape:
            raise UsageError(
                f"images of {first.name!r} are {first.image_shape} (h, w, c) and those of {second.name!r} "
                f"{second.image_shape}: give two sets of one image shape"
            )
        self._first, self._second = first, second
        self.name, self.split = first.name, first.split
        self.class_names, self.image_shape = first.class_names, first.image_shape
        self.examples = first.examples + second.examples

    def __len__(self) -> int:
        return self.examples

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.read(index)

    def read(self, index: int) -> dict[str, Any]:
        """See `source.Source.read`."""
        source, index = self._at(index)
        return source.read(index)

    def read_all(self) -> dict[str, np.ndarray]:
        """See `source.Source.read_all`."""
        return self.read_rows(np.arange(self.examples))

    def read_rows(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """See `source.Source.read_rows`."""
        rows = np.asarray(rows)
        ahead = rows < self._first.examples
        first = self._first.read_rows(rows[ahead])
        second = self._second.read_rows(rows[~ahead] - self._first.examples)
        joined = {name: np.empty((len(rows), *array.shape[1:]), array.dtype) for name, array in first.items()}
        for name, array in joined.items():
            array[ahead], array[~ahead] = first[name], second[name]
        return joined

    def labels(self) -> np.ndarray:
        """See `source.Source.labels`."""
        return np.concatenate([self._first.labels(), self._second.labels()])

    def describe(self, index: int) -> str:
        """See `source.Source.describe`."""
        source, index = self._at(index)
        return source.describe(index)

    @property
    def bytes_when_resident(self) -> int | None:
        """See `source.Source.bytes_when_resident`."""
        return None if None in self.image_shape else self.examples * int(np.prod(self.image_shape))

    def _at(self, index):
        beyond = index - self._first.examples
        return (self._first, index) if beyond < 0 else (self._second, beyond)


def read_guesses(file: str, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows int64 [n] and labels int32 [n] from an `.npz` file that holds `rows` and `labels`.

    Raises:
        UsageError: the file is missing, holds something else, or a label lies outside 0..classes-1.
    """
    path = pathlib.Path(file)
    if not path.is_file():
        raise UsageError(f"no file {file} of pseudo-labels")
    try:
        found = archive.read(path, ("rows", "labels"))
        rows, labels = found["rows"].astype(np.int64), found["labels"].astype(np.int32)
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{file} is no .npz file with `rows` and `labels` ({' '.join(str(error).split())})") from error
    if (
        rows.shape != labels.shape
        or rows.ndim != 1
        or (len(labels) and not 0 <= labels.min() <= labels.max() < classes)
    ):
        raise UsageError(f"{file}: `rows` and `labels` must be two lists of one length, labels in 0..{classes - 1}")
    return rows, labels
