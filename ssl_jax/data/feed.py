"""From a data set's name to what trains and what is evaluated."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np

from ssl_jax import fingerprint, subsets
from ssl_jax.data import source, transforms
from ssl_jax.data.resident import Resident
from ssl_jax.data.selection import Joined, Selection, read_guesses
from ssl_jax.data.stream import HostCrop, Stream
from ssl_jax.types import UsageError


@dataclasses.dataclass(frozen=True)
class Guesses:
    """Images that train under labels a model gave them.

    Attributes:
        file: `.npz` with `rows` int [n] into the split, and `labels` int [n].
        sha256: what the two must be (see `fingerprint.sha256`), so that a resumed run goes on with the same.
        name, split, data_dir: where the images are, as of `training`.
    """

    file: str
    sha256: str
    name: str
    split: str
    data_dir: str = ""

    def read(self, classes: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows int64 [n] and labels int32 [n].

        Raises:
            UsageError: the file is missing, is another than it was, or holds something else.
        """
        rows, guessed = read_guesses(self.file, classes)
        if fingerprint.sha256({"rows": rows, "labels": guessed}) != self.sha256:
            raise UsageError(f"{self.file} holds other pseudo-labels than this run began with: use a new --workdir")
        return rows, guessed


def training(
    name: str,
    split: str,
    batch_size: int,
    feeding: Literal["auto", "resident", "stream"] = "auto",
    data_dir: str = "",
    crop: HostCrop | None = None,
    workers: int = 0,
    resident_limit_mib: int = 2048,
    labels: subsets.Subset | None = None,
    guesses: Guesses | None = None,
    class_names: tuple[str, ...] | None = None,
    image_shape: tuple[int | None, ...] | None = None,
    without: tuple[str, ...] = (),
) -> Resident | Stream:
    """A training feed over a TFDS data set in ArrayRecord form.

    Args:
        name: as in TFDS, or the name given to `experiments.prepare`.
        split: as in TFDS: "train", "train[:10%]", "train+test".
        batch_size: images in a global batch.
        feeding: "resident" keeps the decoded set in device memory, "stream" decodes it along the way; "auto" takes
            resident for sets of one image size up to `resident_limit_mib`.
        data_dir: where the data sets lie; "" is TFDS's own default.
        crop: random resized crops on the host, for images of varying size; streamed only.
        workers: decoding processes of a stream; 0 decodes in a thread.
        resident_limit_mib: what "auto" takes for small.
        labels: the labelled images to train on. Where they do not fill a batch they are repeated, and an epoch is a
            pass over the repetitions. The run keeps the rows of a part as `data/labelled`. None takes the whole split.
        guesses: more images, under labels that a model gave them.
        class_names: what the classes must be, every image labelled; None takes any set.
        image_shape: height, width (None: any) and channels that the images must have; None takes any.
        without: classes whose images are left out, for finding them as odd ones later.

    Raises:
        UsageError: for a set, split, batch or combination that does not exist, or another set than was expected.
    """
    records = source.open_source(name, split, data_dir)
    check_set(records, class_names, image_shape)
    if without:
        records = Selection(records, _rows_without(records, without))
    chosen = {}
    trains_on_labels = labels is not None or guesses is not None or class_names is not None
    if trains_on_labels and not records.class_names:
        raise UsageError(f"data set {name!r}, split {split!r}, has no labels: give a labelled set or split")
    classes = len(records.class_names) if trains_on_labels else None
    if labels is not None and not labels.takes_all:
        chosen["labelled"] = labels.draw(records.labels(), records.class_names)
        records = Selection(records, chosen["labelled"])
    if guesses is not None:
        rows, guessed = guesses.read(classes)
        chosen |= {"guessed": rows, "guesses": guessed}
        others = source.open_source(guesses.name, guesses.split, guesses.data_dir)
        records = Joined(records, Selection(others, rows, guessed))
    if labels is not None and records.examples < batch_size:
        records = Selection(records, np.tile(np.arange(records.examples), -(-batch_size // records.examples)))
    size_bytes = records.bytes_when_resident
    if feeding == "resident" and (crop is not None or size_bytes is None):
        raise UsageError(f"{name!r} cannot be resident: images of varying size are cropped on the host; use 'stream'")
    fits = size_bytes is not None and crop is None and size_bytes <= resident_limit_mib * 2**20
    if feeding == "resident" or (feeding == "auto" and fits):
        arrays = records.read_all()
        if classes is not None:
            subsets.refuse_no_class(arrays["label"], classes, records.describe)
        return Resident(arrays, batch_size, chosen)
    return Stream(records, batch_size, crop=crop, workers=workers, classes=classes, chosen=chosen)


def _rows_without(records: source.Source, without: tuple[str, ...]) -> np.ndarray:
    unknown = [name for name in without if name not in records.class_names]
    if unknown:
        there = ", ".join(records.class_names) or "none, it has no labels"
        raise UsageError(f"data set {records.name!r} has no class {unknown[0]!r} to leave out; its classes: {there}")
    rows = np.flatnonzero(~np.isin(records.labels(), [records.class_names.index(name) for name in without]))
    if not len(rows):
        raise UsageError(f"data set {records.name!r}: no image is left without {', '.join(without)}")
    return rows


def check_set(
    records: source.Source, class_names: tuple[str, ...] | None, image_shape: tuple[int | None, ...] | None
) -> None:
    """Raises UsageError where a set's classes or images are not those that a run expects."""
    here = f"data set {records.name!r}, split {records.split!r},"
    if class_names is not None and tuple(class_names) != records.class_names:
        if not records.class_names:
            raise UsageError(f"{here} has no labels, and labelled images of {len(class_names)} classes are needed")
        missing = [name for name in class_names if name not in records.class_names]
        unknown = [name for name in records.class_names if name not in class_names]
        what = [f"lacks {', '.join(missing[:5])}"] if missing else []
        what += [f"has {', '.join(unknown[:5])} beside"] if unknown else []
        raise UsageError(
            f"{here} has other classes than the run was trained for: it {' and '.join(what) or 'orders them otherwise'}"
        )
    wanted, there = image_shape or (None, None, None), records.image_shape
    if wanted[-1] not in (None, there[-1]):
        raise UsageError(
            f"{here} has images of {there[-1]} channel(s), and the run takes {wanted[-1]}: give images of the same kind"
        )
    if any(expected not in (None, actual) for expected, actual in zip(wanted, there, strict=True)):
        raise UsageError(f"{here} has images of {there} (h, w, c), and the run was made for {wanted}")


class Evaluation:
    """A set that evaluators read once through, in TFDS's order, in masked batches of one shape."""

    def __init__(
        self,
        name: str,
        split: str,
        size_px: int | None = None,
        data_dir: str = "",
        batch_size: int = 256,
        class_names: tuple[str, ...] | None = None,
        image_shape: tuple[int | None, ...] | None = None,
    ):
        """Args:
            name: as in TFDS, or the name given to `experiments.prepare`.
            split: as in TFDS.
            size_px: needed where images vary in size: the shorter side is resized to 8/7 of it (256 for 224) and the
                centre kept, as the linear evaluation of the paper does.
            data_dir: where the data sets lie; "" is TFDS's own default.
            batch_size: images in a batch; the last is padded and masked.
            class_names: what the classes must be; None takes any.
            image_shape: height, width and channels of the training images, of which these must have the channels.

        Raises:
            UsageError: for a set or split that does not exist or is not as expected, or varying sizes without
                `size_px`.
        """
        self._source = source.open_source(name, split, data_dir)
        check_set(self._source, class_names, image_shape and (None, None, image_shape[-1]))
        self.examples = self._source.examples
        self.class_names = self._source.class_names
        self._size_px, self._batch_size = size_px, min(batch_size, self.examples)
        if batch_size < 1:
            raise UsageError(f"batch_size={batch_size}: a batch holds at least 1 image")
        if size_px is None and None in self._source.image_shape:
            raise UsageError(f"the images of {name!r} vary in size: give this data section a size_px")
        self._static = self._source.read_all() if size_px is None else None

    def labels(self) -> np.ndarray:
        """See `types.Examples.labels`."""
        return self._source.labels() if self._static is None else self._static["label"]

    def names(self) -> tuple[str, ...]:
        """What the set calls its images; without such names the split and the row, such as "test 17"."""
        return tuple(self._source.ids() or (f"{self._source.split} {row}" for row in range(self.examples)))

    def batches(self) -> Iterator[Mapping[str, np.ndarray]]:
        """See `types.Examples.batches`."""
        for start in range(0, self.examples, self._batch_size):
            rows = range(start, min(start + self._batch_size, self.examples))
            if self._static is not None:
                batch = {key: array[rows.start : rows.stop] for key, array in self._static.items()}
            else:
                batch = self._decoded(rows)
            padding = self._batch_size - len(rows)
            batch = {key: np.pad(a, [(0, padding)] + [(0, 0)] * (a.ndim - 1)) for key, a in batch.items()}
            yield {**batch, "mask": np.arange(self._batch_size) < len(rows)}

    def _decoded(self, rows):
        records = [self._source.read(row) for row in rows]
        images = [transforms.evaluation_crop(record["image"], self._size_px) for record in records]
        return {"image": np.stack(images), "label": np.array([record["label"] for record in records], np.int32)}
