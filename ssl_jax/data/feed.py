"""From a data set's name to what trains and what is evaluated."""

from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np

from ssl_jax.data import source, transforms
from ssl_jax.data.resident import Resident
from ssl_jax.data.stream import HostCrop, Stream
from ssl_jax.types import UsageError


def training(
    name: str,
    split: str,
    batch_size: int,
    feeding: Literal["auto", "resident", "stream"] = "auto",
    data_dir: str = "",
    crop: HostCrop | None = None,
    workers: int = 0,
    resident_limit_mib: int = 2048,
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

    Raises:
        UsageError: for a set, split, batch or combination that does not exist.
    """
    records = source.open_source(name, split, data_dir)
    size_bytes = records.bytes_when_resident
    if feeding == "resident" and (crop is not None or size_bytes is None):
        raise UsageError(f"{name!r} cannot be resident: images of varying size are cropped on the host; use 'stream'")
    fits = size_bytes is not None and crop is None and size_bytes <= resident_limit_mib * 2**20
    if feeding == "resident" or (feeding == "auto" and fits):
        return Resident(records.read_all(), batch_size)
    return Stream(records, batch_size, crop=crop, workers=workers)


class Evaluation:
    """A set that evaluators read once through, in TFDS's order, in masked batches of one shape."""

    def __init__(self, name: str, split: str, size_px: int | None = None, data_dir: str = "", batch_size: int = 256):
        """Args:
            name: as in TFDS, or the name given to `experiments.prepare`.
            split: as in TFDS.
            size_px: needed where images vary in size: the shorter side is resized to 8/7 of it (256 for 224) and the
                centre kept, as the linear evaluation of the paper does.
            data_dir: where the data sets lie; "" is TFDS's own default.
            batch_size: images in a batch; the last is padded and masked.

        Raises:
            UsageError: for a set or split that does not exist, or varying sizes without `size_px`.
        """
        self._source = source.open_source(name, split, data_dir)
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
        shorter_px = round(self._size_px * 8 / 7)
        images = [
            transforms.center_crop(transforms.resize_shorter(record["image"], shorter_px), self._size_px)
            for record in records
        ]
        return {"image": np.stack(images), "label": np.array([record["label"] for record in records], np.int32)}
