"""What is explored, and what each part of the exploration gives back."""

import csv
import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ssl_jax.types import UsageError

_LARGEST = 1e15


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """Features of some images, with what is known of the images.

    Attributes:
        features: float32 [n, d].
        told: in words whose features they are, such as "encoder of runs/digits, its last checkpoint, step 3600".
        names: what each row is called.
        labels: int32 [n], -1 where unknown.
        class_names: () where there are no labels.
        images: uint8 [n, h, w, c] for the eye and for comparing pixels, shrunk where they are large; None without.
        pixels: whether the features are the images themselves, each number in [0, 1].
        stages: float32 [n, d] by network, those of a SimSiam run in the order of its networks; {} without a run.
        views: float32 [m, q, d] by network, q random views of each of m images; {} where the run draws none.
        total: how many images there are, of which these are evenly taken; 0 for just these.

    Raises:
        UsageError: for fewer than 3 rows, arrays whose lengths differ, or features that are not finite or above 1e15.
    """

    features: np.ndarray
    told: str
    names: tuple[str, ...]
    labels: np.ndarray
    class_names: tuple[str, ...] = ()
    images: np.ndarray | None = None
    pixels: bool = False
    stages: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    views: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    total: int = 0

    def __post_init__(self):
        count = len(self.features)
        if self.features.ndim != 2 or count < 3 or not self.features.shape[1]:
            raise UsageError(f"{self.told}: features of shape {self.features.shape}; at least 3 rows [n, d] are needed")
        for what, rows in (("names", self.names), ("labels", self.labels), ("images", self.images)):
            if rows is not None and len(rows) != count:
                raise UsageError(f"{self.told}: {count:,} rows of features and {len(rows):,} {what}: give as many")
        broken = np.flatnonzero(~np.isfinite(self.features).all(axis=1))
        if len(broken):
            raise UsageError(
                f"{self.told}: the features of {len(broken):,} of {count:,} images are not finite, the first of them "
                f"{self.names[broken[0]]!r}: take those rows out, or a checkpoint from before the training diverged"
            )
        largest = float(np.abs(self.features).max())
        if largest > _LARGEST:
            raise UsageError(f"{self.told}: numbers up to {largest:.1e}, whose squares overflow: divide them first")

    @property
    def counted(self) -> str:
        """How many images these are, in words, and of how many."""
        count = len(self.features)
        return f"{count:,} of {self.total:,} images" if self.total > count else f"{count:,} images"

    @property
    def labelled(self) -> bool:
        """Whether any row has a label."""
        return bool(self.class_names) and bool((self.labels >= 0).any())

    def class_of(self, row: int) -> str:
        """The name of a row's class, "" where it is unknown."""
        label = self.labels[row]
        return self.class_names[label] if label >= 0 and self.class_names else ""

    def refuse_constant(self) -> None:
        """Raises UsageError where all rows are the same to rounding, of which nothing can be grouped or mapped."""
        if relative_spread(self.features) <= 1e-6:
            raise UsageError(f"the features are the same for all {len(self.features):,} images: nothing to tell apart")


@dataclasses.dataclass(frozen=True)
class Part:
    """What a part of the exploration found.

    Attributes:
        html: the inside of its section on the page, below the heading.
        files: contents by file name: text, bytes, or arrays for an `.npz`.
        metrics: what `metrics.json` holds under the part's name.
        lines: what the script prints.
    """

    html: str
    files: Mapping[str, str | bytes | Mapping[str, np.ndarray]] = dataclasses.field(default_factory=dict)
    metrics: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    lines: tuple[str, ...] = ()


def as_csv(lines: Iterable[Sequence[Any]]) -> str:
    """Rows of cells, the first the columns' names, as the text of a CSV file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def relative_spread(features: np.ndarray) -> float:
    """The largest range of a channel of [n, d] over the largest size of a number: 0 for constant features."""
    return float(np.ptp(features, axis=0).max()) / max(1e-12, float(np.abs(features).max()))


def evenly(count: int, most: int) -> np.ndarray:
    """At most `most` of `count` rows, ascending and evenly spread: int64 [min(count, most)]."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(np.int64)
