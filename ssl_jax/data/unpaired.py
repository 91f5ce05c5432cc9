"""Two sets of pictures in no relation to each other, as unpaired translation trains on them and is judged by them.

In domains A and B, as of CycleGAN (arXiv 1703.10593). Everything that reads data sets from disk is imported where it is
used, because machines that have neither TFDS nor Grain train from `npz`.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from ssl_jax import rng
from ssl_jax.data import counterparts
from ssl_jax.data.resident import check_size, noise_images, read_npz
from ssl_jax.types import Batch, Feed, UsageError


class ResidentUnpaired:
    """A training feed of two sets in device memory, in no relation to each other.

    The order is that of CycleGAN's code: an epoch runs through a permutation of 0 to max(|A|, |B|) - 1, which modulo
    |A| gives the image of A, while that of B is drawn uniformly, with replacement, at every step. So `examples` is
    max(|A|, |B|), the smaller set comes around more often, and what the batch size leaves over of an epoch is dropped.
    All is drawn on the device as a function of (seed, step), so that there is nothing to resume.
    """

    def __init__(self, image_a: np.ndarray, image_b: np.ndarray, batch_size: int):
        """Args:
            image_a, image_b: uint8 [n, h, w, c] each, alike in nothing but that.
            batch_size: images of each set in a global batch.

        Raises:
            UsageError: for a batch larger than the larger set, or a set without images.
        """
        if not len(image_a) or not len(image_b):
            raise UsageError(f"domain {'B' if len(image_a) else 'A'} holds no images: both domains need some")
        self.examples = max(len(image_a), len(image_b))
        self.batch_size = batch_size
        self.chosen = {}
        check_size(batch_size, self.examples)
        self.arrays = {"image_a": image_a, "image_b": image_b}
        self.spec = {
            name: jax.ShapeDtypeStruct((batch_size, *array.shape[1:]), array.dtype)
            for name, array in self.arrays.items()
        }

    def batches(self, mesh: jax.sharding.Mesh, seed: int, first_step: int) -> Iterator[Batch]:
        """See `types.Feed.batches`."""
        everywhere, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        arrays = {
            name: jax.make_array_from_callback(array.shape, everywhere, array.__getitem__)
            for name, array in self.arrays.items()
        }
        steps_per_epoch = self.examples // self.batch_size

        def shuffle(epoch):
            return jax.random.permutation(rng.stream(seed, "shuffle", epoch), self.examples)

        def take(arrays, order, step):
            first = step % steps_per_epoch * self.batch_size
            numbers = jax.lax.dynamic_slice_in_dim(order, first, self.batch_size)
            image_a, image_b = arrays["image_a"], arrays["image_b"]
            others = jax.random.randint(rng.stream(seed, "domain_b", step), (self.batch_size,), 0, len(image_b))
            return {"image_a": image_a[numbers % len(image_a)], "image_b": image_b[others]}

        shuffle, take = jax.jit(shuffle, out_shardings=everywhere), jax.jit(take, out_shardings=split)
        epoch, order = -1, None
        step = first_step
        while True:
            if step // steps_per_epoch != epoch:
                epoch = step // steps_per_epoch
                order = shuffle(np.int32(epoch))
            yield take(arrays, order, np.int32(step))
            step += 1


def training(
    name_a: str,
    split_a: str,
    name_b: str,
    split_b: str,
    batch_size: int,
    load_px: int | None = None,
    feeding: Literal["auto", "resident", "stream"] = "auto",
    data_dir: str = "",
    workers: int = 0,
    resident_limit_mib: int = 2048,
    channels_a: int | None = None,
    channels_b: int | None = None,
) -> Feed:
    """A training feed of `image_a` and `image_b`, uint8 [b, h, w, c] each, in the order of `ResidentUnpaired`.

    Args:
        name_a, split_a: the set and split of domain A, as in TFDS or prepared by `experiments.prepare`.
        name_b, split_b: those of domain B; it may be the same set.
        batch_size: images of each domain in a global batch.
        load_px: every picture is made a square of this side, its proportions not kept, as CycleGAN's code does before
            its random crop (286 for a crop of 256), which is made on the device; None takes the images as they are.
        feeding: "resident" keeps both sets, so resized, in device memory; "stream" decodes and resizes them along the
            way; "auto" takes resident where both fit in `resident_limit_mib` together. Their draws differ.
        data_dir: where the data sets lie; "" is TFDS's own default.
        workers: decoding processes of a stream; 0 decodes in a thread.
        resident_limit_mib: what "auto" takes for small.
        channels_a, channels_b: the channels that the images must have; None takes any.

    Raises:
        UsageError: for a set, split or batch that does not exist, one set for both domains, images of varying size
            without `load_px`, or of other channels.
        types.RunError: an image that is kept in memory does not decode; a streamed one ends the training so.
    """
    from ssl_jax.data import feed, stream

    if (name_a, split_a) == (name_b, split_b):
        raise UsageError(f"both domains are {name_a!r}, split {split_a!r}: give two different sets or splits")
    sources = []
    for name, split, channels in ((name_a, split_a, channels_a), (name_b, split_b, channels_b)):
        records = _open(name, split, data_dir)
        feed.check_set(records, None, (None, None, channels))
        sources.append(_sized(records, load_px, "load_px"))
    needed_bytes = sum(source.bytes_when_resident for source in sources)
    if feeding == "resident" or (feeding == "auto" and needed_bytes <= resident_limit_mib * 2**20):
        return ResidentUnpaired(*(source.read_all()["image"] for source in sources), batch_size)
    return stream.UnpairedStream(*sources, batch_size, workers=workers)


def npz(file: str, batch_size: int) -> ResidentUnpaired:
    """A resident feed from an `.npz` file with `image_a` and `image_b`, uint8 [n, h, w, c] each, of any channels.

    For machines that have no TFDS and no network, and for sets that are no photographs.

    Raises:
        UsageError: for a file that is missing or holds something else.
    """
    arrays = read_npz(file, ("image_a", "image_b"))
    for name in ("image_a", "image_b"):
        if name not in arrays:
            raise UsageError(f"{file} has no entry `{name}`: it needs image_a and image_b, uint8 [n, h, w, c]")
        if arrays[name].dtype != np.uint8 or arrays[name].ndim != 4:
            there = f"{arrays[name].dtype} {list(arrays[name].shape)}"
            raise UsageError(
                f"{file}: `{name}` is {there}, and uint8 [n, h, w, c] is read: bring its values to 0 to 255"
            )
    try:
        return ResidentUnpaired(arrays["image_a"], arrays["image_b"], batch_size)
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from error


def noise(shape: tuple[int, int, int, int], batch_size: int) -> ResidentUnpaired:
    """A resident feed of two sets of uniform noise, uint8 of `shape` [n, h, w, c] each: see `resident.noise`."""
    return ResidentUnpaired(noise_images(shape, 0), noise_images(shape, 1), batch_size)


class Test:
    """One domain's test images, read once through, in TFDS's order, in masked batches of one shape."""

    def __init__(
        self,
        name: str,
        split: str,
        size_px: int | None = None,
        data_dir: str = "",
        batch_size: int = 64,
        limit: int | None = None,
    ):
        """Args:
            name: as in TFDS, or the name given to `experiments.prepare`.
            split: as in TFDS.
            size_px: every picture is made a square of this side, its proportions not kept, and nothing is cropped, as
                CycleGAN's code tests; None takes the images as they are, and keeps them in memory.
            data_dir: where the data sets lie; "" is TFDS's own default.
            batch_size: images in a batch; the last is padded and masked.
            limit: only the first so many are read; None reads all.

        Raises:
            UsageError: for a set or split that does not exist, or varying sizes without `size_px`.
        """
        records = _open(name, split, data_dir)
        self.class_names = records.class_names
        self._labels = records.labels
        rows = np.arange(records.examples)[: _at_least_one(limit, "limit")]
        self.examples = len(rows)
        self._read = _reader(records, size_px, rows)
        self._batch_size = min(_at_least_one(batch_size, "batch_size"), self.examples)

    def labels(self) -> np.ndarray:
        """See `types.Examples.labels`."""
        return self._labels()[: self.examples]

    def batches(self) -> Iterator[Mapping[str, np.ndarray]]:
        """See `types.Examples.batches`."""
        return _masked(self.examples, self._batch_size, self._read)


class Pairs:
    """Test images of A whose true counterparts in B are known, read once through in A's order, in masked batches.

    Where the records of both splits have ids (`source.Source.ids`), equal ids belong together: without the folder that
    is named like the split, without the file's extension, and without an `_A` or `_B` at the end. Where they have none,
    records belong together by order, which is refused of sets that TFDS has shuffled.

    Attributes:
        examples: how many pairs are read.
        class_names: of A; () if unlabelled.
    """

    def __init__(
        self,
        name_a: str,
        split_a: str,
        name_b: str,
        split_b: str,
        size_px: int | None = None,
        data_dir: str = "",
        batch_size: int = 64,
        limit: int | None = None,
    ):
        """Args:
            name_a, split_a: the set and split of domain A.
            name_b, split_b: those of domain B; it may be the same set.
            size_px, data_dir, batch_size, limit: as of `Test`; the first pairs are A's first.

        Raises:
            UsageError: as of `Test`; a picture has no counterpart, or more than one.
        """
        a, b = _open(name_a, split_a, data_dir), _open(name_b, split_b, data_dir)
        self.class_names = a.class_names
        self._labels = a.labels
        rows = counterparts.rows(a, b)[: _at_least_one(limit, "limit")]
        self.examples = len(rows)
        self._read_a = _reader(a, size_px, np.arange(self.examples))
        self._read_b = _reader(b, size_px, rows)
        self._batch_size = min(_at_least_one(batch_size, "batch_size"), self.examples)

    def labels(self) -> np.ndarray:
        """Those of A, int32 [n], -1 where unknown; costs no decoding."""
        return self._labels()[: self.examples]

    def batches(self) -> Iterator[Mapping[str, np.ndarray]]:
        """Host batches: `image_a` and `image_b` uint8 [b, h, w, c], `label` int32 [b] of A, `mask` bool [b]."""
        return _masked(self.examples, self._batch_size, self._read)

    def _read(self, rows):
        a, b = self._read_a(rows), self._read_b(rows)
        return {"image_a": a["image"], "image_b": b["image"], "label": a["label"]}


def _open(name: str, split: str, data_dir: str) -> Any:
    from ssl_jax.data import source

    return source.open_source(name, split, data_dir)


def _sized(records: Any, size_px: int | None, key: str) -> Any:
    """Records of one size, by the argument of a data section that is called `key`."""
    if size_px is not None:
        from ssl_jax.data import squares

        return squares.Squares(records, size_px)
    if None in records.image_shape:
        raise UsageError(f"the images of {records.name!r} vary in size: give this data section a {key}")
    return records


def _reader(records: Any, size_px: int | None, rows: np.ndarray) -> Callable[[range], Mapping[str, np.ndarray]]:
    """From a range of places in `rows` to what lies there, which is kept in memory if it needs no resizing."""
    sized = _sized(records, size_px, "size_px")
    if size_px is not None:
        return lambda places: sized.read_rows(rows[places.start : places.stop])
    kept = sized.read_rows(rows)
    return lambda places: {key: array[places.start : places.stop] for key, array in kept.items()}


def _masked(examples, batch_size, read):
    for start in range(0, examples, batch_size):
        places = range(start, min(start + batch_size, examples))
        padding = batch_size - len(places)
        batch = {key: np.pad(a, [(0, padding)] + [(0, 0)] * (a.ndim - 1)) for key, a in read(places).items()}
        yield {**batch, "mask": np.arange(batch_size) < len(places)}


def _at_least_one(count: int | None, key: str) -> int | None:
    if count is not None and count < 1:
        raise UsageError(f"{key}={count}: at least 1 image is read")
    return count
