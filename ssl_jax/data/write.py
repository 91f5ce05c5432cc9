"""Writes records as TFDS data sets in ArrayRecord form, without TensorFlow.

A set appears in the data folder by one rename, whole, or not at all; what was there before outlives every failure.
"""

import contextlib
import dataclasses
import errno
import glob
import importlib.util
import io
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds
from tensorflow_datasets.core.features import image_feature
from tensorflow_datasets.core.utils import lazy_imports_utils

from ssl_jax import types
from ssl_jax.data import catalog

VERSION = "1.0.0"
ORIGIN = "origin.json"
# What TFDS raises on an incomplete or damaged description.
UNREADABLE = (ValueError, OSError)
Records = Callable[[], Iterator[tuple[str | int, Mapping[str, Any]]]]


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What was made: the version folder, and sentences about it for the user."""

    directory: pathlib.Path
    notes: tuple[str, ...]

    def lines(self, data_dir: str) -> list[str]:
        """Where it is, what is in it, and how a config names it."""
        info = tfds.builder_from_directory(self.directory).info
        labelled = "label" in info.features and isinstance(info.features["label"], tfds.features.ClassLabel)
        sizes = [*info.features["image"].shape] if "image" in info.features else []
        splits = sorted(info.splits, key=lambda split: (not split.startswith("train"), split))
        name = info.full_name.removesuffix(f":{info.version}").removesuffix(f"/{info.version}")
        place = f', "data_dir": "{data_dir}"' if data_dir else ""
        use = f'"name": "{name}", "split": "{splits[0]}"'
        if {"trainA", "trainB"} <= set(splits):
            use = ", ".join(f'"name_{d}": "{name}", "split_{d}": "train{d.upper()}"' for d in "ab")
        return [
            *self.notes,
            f"folder:  {self.directory}",
            "splits:  " + ", ".join(f"{split} {info.splits[split].num_examples}" for split in splits),
            "classes: " + (shorten(info.features["label"].names) if labelled else "none (unlabelled)"),
            "size:    " + " x ".join("varying" if side is None else str(side) for side in sizes) + " (h x w x c)",
            f"use:     {use}{place}",
        ]


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """TFDS's writer, given records."""

    VERSION = tfds.core.Version(VERSION)

    def __init__(self, *, name: str, features: Any, splits: Mapping[str, Records], ordered: bool, data_dir: str):
        self.name, self._features, self._splits, self._ordered = name, features, splits, ordered
        super().__init__(data_dir=data_dir, file_format=catalog.FORMAT)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(builder=self, features=self._features, disable_shuffling=self._ordered)

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {split: records() for split, records in self._splits.items()}

    def _generate_examples(self, **_: Any) -> Any:
        raise NotImplementedError("the records are given with the splits")


def records(
    name: str,
    splits: Mapping[str, Records],
    image_shape: tuple[int | None, int | None, int],
    class_names: tuple[str, ...],
    scratch: pathlib.Path,
    ordered: bool = False,
) -> pathlib.Path:
    """Writes records as a TFDS data set below `scratch` and returns its version folder.

    Args:
        name: the data set's name.
        splits: for each split a function that yields (key, record); a record holds `image` (an encoded file's bytes),
            `id` (text) and, if there are classes, `label` (a class name or number, or -1).
        image_shape: height, width and channels; None where a side varies.
        class_names: in the order of the labels; () if unlabelled.
        scratch: an existing folder on the file system where the set will lie.
        ordered: whether records keep the order of their keys, integers that count up; else a hash of the key orders.
    """
    features = {"image": tfds.features.Image(shape=image_shape), "id": tfds.features.Text()}
    if class_names:
        features["label"] = tfds.features.ClassLabel(names=class_names)
    builder = _Builder(
        name=name,
        features=tfds.features.FeaturesDict(features),
        splits=splits,
        ordered=ordered,
        data_dir=str(scratch),
    )
    # The caller counts records in a bar of its own, and TFDS reports the scratch folder as where the data will stay.
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare()
    return pathlib.Path(builder.data_dir)


@contextlib.contextmanager
def workspace(data_folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """A scratch folder on the file system of the prepared sets, gone afterwards.

    Raises:
        types.UsageError: nothing can be written there.
        types.RunError: the disk is full.
    """
    try:
        data_folder.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(prefix=".preparing-", dir=data_folder)
    except OSError as error:
        raise types.UsageError(
            f"cannot write in {data_folder} ({error.strerror}): name another folder with --data_dir"
        ) from error
    with scratch as path:
        try:
            yield pathlib.Path(path)
        except Exception as error:
            if is_full_disk(error):
                raise types.RunError(
                    f"the disk of {data_folder} is full: free space, or name another folder with --data_dir"
                ) from error
            raise


def publish(built: pathlib.Path, target: pathlib.Path, aside: pathlib.Path | None = None) -> None:
    """Moves a finished version folder to its place.

    Args:
        built: the folder.
        target: its place.
        aside: where what lies at `target` goes; None if nothing may lie there.

    Raises:
        FileExistsError: `aside` is None and something is there, put there by another process perhaps.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if aside is not None:
            os.rename(target, aside)
        os.rename(built, target)
    # Ctrl-C too must not leave the earlier set in a scratch folder that is about to be removed.
    except BaseException as error:
        if aside is not None and aside.exists() and not target.exists():
            os.rename(aside, target)
        if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise FileExistsError(errno.EEXIST, "another process put a data set there", str(target)) from error
        raise


def origin(version_folder: pathlib.Path) -> dict[str, str] | None:
    """What `remember` noted there, or None.

    Raises:
        types.UsageError: the note is damaged.
    """
    path = version_folder / ORIGIN
    if not path.is_file():
        return None
    try:
        noted = json.loads(path.read_text())
    except ValueError as error:
        raise types.UsageError(f"{path} is damaged ({error}): {catalog.again(version_folder)}") from error
    if not isinstance(noted, dict) or not {"root", "stamp"} <= noted.keys():
        raise types.UsageError(f"{path} is damaged (no root and stamp in it): {catalog.again(version_folder)}")
    return noted


def check_whole(version_folder: pathlib.Path, way: str) -> None:
    """Looks whether the description can be read and every shard is there; what is in the shards is not looked at.

    Args:
        version_folder: of a set in ArrayRecord form.
        way: the way out, for the message.

    Raises:
        types.UsageError: something is missing.
    """
    try:
        info = tfds.builder_from_directory(version_folder).info
        info.set_file_format(catalog.FORMAT, override=True, override_if_initialized=True)
        shards = [
            pathlib.Path(path)
            for split in info.splits.values()
            for path, length in zip(split.filepaths, split.shard_lengths, strict=True)
            if length
        ]
    except UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise types.UsageError(f"the description in {version_folder} is damaged ({reason}): {way}") from error
    missing = [path for path in shards if not path.is_file()]
    if missing:
        raise types.UsageError(f"shard {missing[0]} is missing: {way}")


def remember(version_folder: pathlib.Path, origin: Mapping[str, str]) -> None:
    """Notes beside the data what it was made from, since TFDS would take any data of that name for the same."""
    (version_folder / ORIGIN).write_text(json.dumps(origin))


def allow_without_tensorflow() -> None:
    """Where TensorFlow is absent, gives TFDS the few of its functions that writing needs.

    They are file access (builders, and the shuffler once a split passes 1000 MiB) and lossless encoding of arrays; the
    records come out as with TensorFlow. This touches names private to TFDS, so it is called by preparation alone.
    """
    if importlib.util.find_spec("tensorflow"):
        return
    image_feature._ImageEncoder._encode_image = _encode_png
    gfile = SimpleNamespace(
        GFile=open,
        exists=os.path.exists,
        isdir=os.path.isdir,
        listdir=lambda path: sorted(os.listdir(path)),
        glob=lambda pattern: sorted(glob.glob(pattern)),
        remove=os.remove,
        rmtree=shutil.rmtree,
        makedirs=lambda path: os.makedirs(path, exist_ok=True),
        rename=lambda old, new, overwrite=False: os.replace(old, new),
    )
    lazy_imports_utils.tensorflow.__dict__["_module"] = SimpleNamespace(
        io=SimpleNamespace(gfile=gfile),
        compat=SimpleNamespace(as_text=os.fsdecode),
        errors=SimpleNamespace(ResourceExhaustedError=MemoryError, UnimplementedError=NotImplementedError),
    )


def _encode_png(self: Any, pixels: np.ndarray) -> bytes:
    image_feature._validate_np_array(pixels, shape=self.shape, dtype=self.np_dtype)
    if self.encoding_format != "png":
        raise NotImplementedError("lossy encoding of arrays needs TensorFlow")
    out = io.BytesIO()
    PIL.Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(out, "png")
    return out.getvalue()


def is_full_disk(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, says that the disk is full."""
    while error is not None:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            return True
        # The writers below Python know no errno.
        if os.strerror(errno.ENOSPC) in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def shorten(names: Sequence[str]) -> str:
    """How many names, and the first five."""
    return f"{len(names)} ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"
