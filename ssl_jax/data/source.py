"""Random access to a prepared TFDS data set in ArrayRecord form, without TensorFlow."""

import os
import pathlib
import re
import zlib
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from ssl_jax import types
from ssl_jax.data import catalog, transforms

MADE_AT_FIRST_USE = ("digits", "digit_domains")
_AT_ONCE = 1024
_ID_KEYS = ("id", "file_name", "image/filename")
_SPLIT_FORMS = "'train', 'train[:10%]', 'train[-100:]', 'train[50%:]+test'"


class Source:
    """One split of a data set as a sequence of {"image": uint8 [h, w, c], "label": int}.

    It pickles as its arguments, so that worker processes open the files themselves, and serves Grain as a source.

    Attributes:
        name: as it was asked for.
        split: likewise.
        examples: how many records the split has.
        class_names: () if unlabelled: there is no `label`, or it is not one class a record.
        splits: all that the set has.
        image_shape: height, width and channels (1 or 3); None where a side varies.
    """

    def __init__(self, directory: str, name: str, split: str):
        """Opens a version folder; `open_source` finds it by name.

        Raises:
            types.UsageError: the set has no usable `image`, or the split does not exist or has no records.
        """
        self.name, self.split, self._directory = name, split, directory
        try:
            builder = tfds.builder_from_directory(directory)
            # A set may have been converted in place, and then names both forms.
            builder.info.set_file_format(catalog.FORMAT, override=True, override_if_initialized=True)
        except (ValueError, OSError) as error:
            raise types.UsageError(
                f"the description of data set {name!r} in {directory} is damaged "
                f"({' '.join(str(error).split())}): {catalog.again(directory)}"
            ) from error
        self._info = builder.info
        features = builder.info.features
        self.image_shape = _image_shape(features, name)
        label = features["label"] if "label" in features else None
        self._labelled = isinstance(label, tfds.features.ClassLabel)
        self.class_names = tuple(label.names) if self._labelled else ()
        self.splits = tuple(builder.info.splits)
        _check_split(builder.info, split, name, directory)
        skipped = [key for key, feature in features.items() if isinstance(feature, tfds.features.Image)]
        self._records = builder.as_data_source(split, decoders={key: tfds.decode.SkipDecoding() for key in skipped})
        self.examples = len(self._records)

    def __reduce__(self) -> tuple[type["Source"], tuple[str, str, str]]:
        return Source, (self._directory, self.name, self.split)

    def __len__(self) -> int:
        return self.examples

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.read(index)

    def read(self, index: int) -> dict[str, Any]:
        """The record at `index`: `image` uint8 [h, w, c] and `label` int, -1 where it is unknown.

        Raises:
            IndexError: there is no such record.
            types.RunError: a file is damaged, or the image does not decode, or not to the size that the set declares.
        """
        if not 0 <= index < self.examples:
            raise IndexError(f"record {index} of {self.examples} in {self.name!r} split {self.split!r}")
        return self._decode(index, self._fetch([int(index)])[0])

    def read_all(self) -> dict[str, np.ndarray]:
        """The whole split: `image` uint8 [n, h, w, c] and `label` int32 [n], -1 where it is unknown.

        Raises:
            types.UsageError: the images vary in size.
            types.RunError: see `read`.
        """
        return self.read_rows(np.arange(self.examples))

    def read_rows(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The records at `rows`, int [m], in that order; the rest as of `read_all`."""
        if None in self.image_shape:
            raise types.UsageError(
                f"the images of {self.name!r} vary in size, so they cannot lie in one array: "
                "stream them, with a crop to one size"
            )
        image = np.empty((len(rows), *self.image_shape), np.uint8)
        label = np.empty(len(rows), np.int32)
        for first in range(0, len(rows), _AT_ONCE):
            indices = [int(row) for row in rows[first : first + _AT_ONCE]]
            for place, record in enumerate(self._fetch(indices), start=first):
                decoded = self._decode(indices[place - first], record)
                image[place], label[place] = decoded["image"], decoded["label"]
        return {"image": image, "label": label}

    def labels(self) -> np.ndarray:
        """The labels of the whole split without decoding an image: int32 [n], -1 where unknown.

        Raises:
            types.RunError: a file is damaged.
        """
        label = np.full(self.examples, -1, np.int32)
        # ArrayRecord keeps a record in one piece, so this reads the encoded images too, unless nothing is labelled.
        for first in range(0, self.examples if self._labelled else 0, _AT_ONCE):
            indices = range(first, min(first + _AT_ONCE, self.examples))
            label[indices.start : indices.stop] = [record["label"] for record in self._fetch(list(indices))]
        return label

    def ids(self) -> list[str] | None:
        """What the set calls each record, in order, without decoding an image; None where it has no such names.

        Raises:
            types.RunError: a file is damaged.
        """
        key = next((key for key in _ID_KEYS if key in self._info.features), None)
        if key is None:
            return None
        firsts = range(0, self.examples, _AT_ONCE)
        portions = (range(first, min(first + _AT_ONCE, self.examples)) for first in firsts)
        return [_text(record[key]) for portion in portions for record in self._fetch(list(portion))]

    @property
    def keeps_order(self) -> bool:
        """Whether the records lie in the order in which they came, and not in that of a hash, as TFDS shuffles them."""
        return self._info.disable_shuffling

    def records(self) -> np.ndarray:
        """A number for each row, int64 [n], that tells its record from every other and is the same in every split."""
        splits = tfds.core.splits.SplitDict(list(self._info.splits.values()))
        parts = []
        for file in splits[self.split].file_instructions:
            shard = zlib.crc32(os.path.realpath(os.fspath(file.filename)).encode())
            parts.append((shard >> 1 << 32) + file.skip + np.arange(file.take, dtype=np.int64))
        return np.concatenate(parts)

    def describe(self, index: int) -> str:
        """Words that find one record again: its index and file name, the data set, split and folder."""
        return self._describe(index, self._fetch([int(index)])[0])

    @property
    def bytes_when_resident(self) -> int | None:
        """How much memory all images take as uint8; None if they vary in size."""
        if None in self.image_shape:
            return None
        return self.examples * int(np.prod(self.image_shape))

    def _fetch(self, indices: list[int]) -> list[dict[str, Any]]:
        try:
            return self._records.__getitems__(indices)
        except RuntimeError as error:
            raise types.RunError(
                f"data set {self.name!r} split {self.split!r} in {self._directory} is damaged among records "
                f"{indices[0]} to {indices[-1]} ({error}): {catalog.again(self._directory)}"
            ) from error

    def _decode(self, index: int, record: dict[str, Any]) -> dict[str, Any]:
        *size, channels = self.image_shape
        try:
            image = transforms.decode(record["image"], channels)
        except ValueError as error:
            raise types.RunError(
                f"{self._describe(index, record)} does not decode ({error}): {catalog.again(self._directory)}"
            ) from error
        if any(declared not in (None, actual) for declared, actual in zip(size, image.shape, strict=False)):
            raise types.RunError(
                f"{self._describe(index, record)} is {image.shape[0]}x{image.shape[1]} px "
                f"where the data set declares {size[0]}x{size[1]}: {catalog.again(self._directory)}"
            )
        return {"image": image, "label": int(record["label"]) if self._labelled else -1}

    def _describe(self, index: int, record: dict[str, Any]) -> str:
        known = [_text(record[key]) for key in _ID_KEYS if key in record]
        named = f" ({known[0]})" if known else ""
        return f"record {index}{named} of data set {self.name!r}, split {self.split!r}, in {self._directory}"


def open_source(name: str, split: str, data_dir: str = "") -> Source:
    """Opens one split of a prepared data set.

    The sets of `MADE_AT_FIRST_USE` are prepared by this; every other set by `experiments.prepare`.

    Args:
        name: `fashion_mnist`, `cifar10:3.0.2`, `cycle_gan/horse2zebra`, or the name of one's own set. The newest
            version where none is named.
        split: TFDS's notation, such as `train`, `train[:10%]`, `train[-100:]`, `train+test`.
        data_dir: where prepared sets lie; "" is TFDS's own default, `~/tensorflow_datasets` or `$TFDS_DATA_DIR`.

    Raises:
        types.UsageError: the set is unknown, half-written, of another form than ArrayRecord or without images, or there
            is no such split.
    """
    if catalog.parse(name).name in MADE_AT_FIRST_USE:
        # Only here, because writing needs scikit-learn and Pillow, and reading does not.
        from ssl_jax.data import digit_domains, digits

        made = {module.NAME: module for module in (digits, digit_domains)}
        made[catalog.parse(name).name].ensure(data_dir)
    directory = catalog.find(name, data_dir)
    there = catalog.formats(directory)
    if catalog.FORMAT not in there:
        place = f" --data_dir={data_dir}" if data_dir else " --data_dir=ANOTHER_FOLDER"
        way = (
            f"re-frame it with python -m experiments.prepare --tfrecord={directory} --data_dir=ANOTHER_FOLDER "
            "and name that folder as data_dir"
            if "tfrecord" in there
            else f"prepare it with python -m experiments.prepare --tfds={name}{place}"
        )
        raise types.UsageError(
            f"data set {name!r} in {directory} is in {', '.join(sorted(there))} form, and ArrayRecord is read: {way}"
        )
    return Source(str(directory), name, split)


def _text(name: Any) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


def _image_shape(features: Any, name: str) -> tuple[int | None, int | None, int]:
    found = features["image"] if "image" in features else None
    if not isinstance(found, tfds.features.Image):
        raise types.UsageError(
            f"data set {name!r} has no feature `image` that holds an image; its features are: {', '.join(features)}"
        )
    height, width, channels = found.shape
    if found.np_dtype != np.uint8:
        raise types.UsageError(f"the images of data set {name!r} are {found.np_dtype}, and uint8 is read")
    return height, width, 1 if channels == 1 else 3


def _check_split(info: tfds.core.DatasetInfo, split: str, name: str, directory: str) -> None:
    asked = [re.split(r"[\[\s]", part.strip())[0] for part in split.split("+")]
    # A malformed slice is told apart first: `train[` is no unknown split.
    unknown = [part for part in asked if part not in info.splits and part != "all" and re.fullmatch(r"[\w-]+", part)]
    if unknown:
        raise types.UsageError(
            f"data set {name!r} has no split {unknown[0]!r}; its splits are: "
            + ", ".join(f"{key} ({found.num_examples} images)" for key, found in info.splits.items())
        )
    try:
        files = tfds.core.splits.SplitDict(list(info.splits.values()))[split].file_instructions
    except (ValueError, AssertionError, NotImplementedError, KeyError) as error:
        reason = " ".join(str(error.args[0] if error.args else error).split("\n")[-1].split())
        raise types.UsageError(
            f"split {split!r} of data set {name!r} cannot be read ({reason}): write for example {_SPLIT_FORMS}"
        ) from error
    # TFDS turns an upside-down slice such as train[5:2] into a negative count.
    if not files or min(file.take for file in files) < 1:
        raise types.UsageError(f"split {split!r} of data set {name!r} has no images: write for example {_SPLIT_FORMS}")
    for file in files:
        if not pathlib.Path(os.fspath(file.filename)).is_file():
            raise types.UsageError(f"shard {file.filename} of data set {name!r} is missing: {catalog.again(directory)}")
