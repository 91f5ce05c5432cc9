"""A data set read from disk while it trains, by Grain: for images of varying size and sets that outgrow the device."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import grain.python as grain
import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from ssl_jax.data import transforms
from ssl_jax.data.resident import check_size
from ssl_jax.types import Batch, RunError, UsageError


@dataclasses.dataclass(frozen=True)
class HostCrop:
    """Random resized crops made on the host, so that images of any size reach the device in one static size.

    Attributes:
        size_px: side of the square crop.
        scale: area of the crop as a share of the image's, uniform between the two.
        ratio: width over height, log-uniform between the two.
        views: independent crops of each image.
        small_images: "refused" stops at an image whose shorter side is below `size_px`; "enlarged" takes it all the
            same, as torchvision does (ImageNet holds some).

    The crops of an image are independent, `image_1`, `image_2` and so on; the augmentation on the device then crops no
    more, and the views are as independent as the paper's.
    """

    size_px: int
    scale: tuple[float, float] = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    views: int = 2
    small_images: Literal["refused", "enlarged"] = "refused"

    def __post_init__(self):
        for name in ("size_px", "views"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}: it must be at least 1")
        for name, most in (("scale", 1.0), ("ratio", math.inf)):
            low, high = getattr(self, name)
            if not 0.0 < low <= high <= most:
                raise UsageError(f"{name} is {(low, high)}: it must be (low, high) with 0 < low <= high <= {most}")


class Stream:
    """A training feed that decodes on the host, in threads or worker processes.

    The batch of step s is a function of (seed, s), whatever the number of processes, threads and workers: each epoch
    is a permutation by seed and epoch, the crop's draws belong to the position, and the process's share is taken last.
    """

    def __init__(
        self,
        source: Any,
        batch_size: int,
        *,
        crop: HostCrop | None,
        workers: int,
        prefetch: int = 4,
        classes: int | None = None,
        chosen: Mapping[str, np.ndarray] | None = None,
    ):
        """Args:
            source: random access to records {"image": uint8 [h, w, c], "label": int}; `describe(index)` names one.
            batch_size: images in a global batch.
            crop: needed where the images vary in size.
            workers: worker processes; 0 decodes in a thread of this one.
            prefetch: batches decoded ahead.
            classes: labels outside 0..classes-1 end the run; None takes any.
            chosen: see `types.Feed`.

        Raises:
            UsageError: for a batch larger than the set, less than no workers, or images of varying size without `crop`.
        """
        _check_workers(workers)
        self.examples = source.examples
        self.batch_size = batch_size
        self.chosen = dict(chosen or {})
        check_size(batch_size, self.examples)
        self._source, self._crop, self._workers, self._prefetch = source, crop, workers, prefetch
        self._classes = classes
        height, width, channels = source.image_shape
        if crop is not None:
            shape = (batch_size, crop.size_px, crop.size_px, channels)
            images = [f"image_{view + 1}" for view in range(crop.views)]
        elif height is None or width is None:
            raise UsageError(
                f"the images of {source.name!r} vary in size: give the data section "
                'crop={"type": "data.stream.HostCrop", "size_px": ...} and the views no crop of their own'
            )
        else:
            shape, images = (batch_size, height, width, channels), ["image"]
        self.spec = {name: jax.ShapeDtypeStruct(shape, np.uint8) for name in images}
        self.spec["label"] = jax.ShapeDtypeStruct((batch_size,), np.int32)

    def batches(self, mesh: jax.sharding.Mesh, seed: int, first_step: int) -> Iterator[Batch]:
        """See `types.Feed.batches`."""
        return _on_mesh(self, mesh, seed, first_step)

    def host_batches(self, seed: int, first_step: int, process: int = 0, processes: int = 1) -> grain.IterDataset:
        """This process's share of the batches from `first_step` on, as host arrays.

        Raises:
            RunError: while iterating, an image that is smaller than the crop, or a label that is none.
        """
        refuses = self._crop is not None and self._crop.small_images == "refused"
        source = _Sound(self._source, self._crop.size_px if refuses else 0, self._classes)
        order = _Epochs(source, seed, kept=self.examples // self.batch_size * self.batch_size)
        records = grain.MapDataset.source(order).seed(seed)
        records = records.random_map(_Prepare(self._crop))
        share = _Share(records, self.batch_size, process, processes)
        return _batched(share, first_step, self._workers, self._prefetch)


class UnpairedStream:
    """A training feed of two sets in no relation to each other, decoded on the host in threads or worker processes.

    The order is that of CycleGAN's code: an epoch runs through a permutation of 0 to max(|A|, |B|) - 1, which modulo
    |A| gives the image of A, while that of B is drawn uniformly, with replacement, at every position. As of `Stream`,
    a batch is a function of (seed, step), whatever the number of processes, threads and workers.
    """

    def __init__(self, source_a: Any, source_b: Any, batch_size: int, *, workers: int, prefetch: int = 4):
        """Args:
            source_a, source_b: as of `Stream`, with images of one size each; labels are not used.
            batch_size: images of each set in a global batch.
            workers: worker processes; 0 decodes in a thread of this one.
            prefetch: batches decoded ahead.

        Raises:
            UsageError: for a batch larger than the larger set, or less than no workers.
        """
        _check_workers(workers)
        self.examples = max(source_a.examples, source_b.examples)
        self.batch_size = batch_size
        self.chosen = {}
        check_size(batch_size, self.examples)
        self._sources, self._workers, self._prefetch = (source_a, source_b), workers, prefetch
        self.spec = {
            name: jax.ShapeDtypeStruct((batch_size, *source.image_shape), np.uint8)
            for name, source in (("image_a", source_a), ("image_b", source_b))
        }

    def batches(self, mesh: jax.sharding.Mesh, seed: int, first_step: int) -> Iterator[Batch]:
        """See `types.Feed.batches`."""
        return _on_mesh(self, mesh, seed, first_step)

    def host_batches(self, seed: int, first_step: int, process: int = 0, processes: int = 1) -> grain.IterDataset:
        """This process's share of the batches from `first_step` on, as host arrays."""
        numbers = range(self.examples)
        order = _Epochs(numbers, seed, kept=self.examples // self.batch_size * self.batch_size)
        records = grain.MapDataset.source(order).seed(seed).random_map(_ReadUnpaired(*self._sources))
        share = _Share(records, self.batch_size, process, processes)
        return _batched(share, first_step, self._workers, self._prefetch)


def _check_workers(workers):
    if workers < 0:
        raise UsageError(f"workers is {workers}: 0 decodes in a thread, more in so many processes")


def _on_mesh(feed, mesh, seed, first_step):
    split = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    iterator = iter(feed.host_batches(seed, first_step, jax.process_index(), jax.process_count()))
    try:
        for local in iterator:
            yield {name: jax.make_array_from_process_local_data(split, local[name]) for name in feed.spec}
    except RunError as error:
        raise RunError(str(error).splitlines()[0]) from error  # Grain adds lines of its own
    finally:
        if hasattr(iterator, "close"):
            iterator.close()


def _batched(share, first_step, workers, prefetch):
    records = grain.MapDataset.source(share).batch(share.rows, drop_remainder=True)
    threads = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2 * prefetch)
    iterable = records.slice(slice(first_step, None)).to_iter_dataset(threads)
    if workers:
        options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=prefetch)
        iterable = iterable.mp_prefetch(options)
    return iterable


class _Sound:
    """A source whose records suit the run; here a record's index is still known."""

    def __init__(self, source, least_px, classes):
        self._source, self._least_px, self._classes = source, least_px, classes

    def __len__(self):
        return len(self._source)

    def __getitem__(self, index):
        record = self._source[index]
        height, width = record["image"].shape[:2]
        if min(height, width) < self._least_px:
            raise RunError(
                f"{self._source.describe(index)} is {height}x{width} px, smaller than the crop of {self._least_px} px: "
                f"lower the crop's size_px, remove the image, or set small_images='enlarged'"
            )
        if self._classes is not None and not 0 <= record["label"] < self._classes:
            raise RunError(
                f"{self._source.describe(index)} has label {record['label']}, outside 0..{self._classes - 1}: "
                "train on a wholly labelled split"
            )
        return record


class _Epochs:
    """Positions of an endless training as records: each epoch is Grain's shuffle of the source, its tail dropped."""

    def __init__(self, source, seed, *, kept):
        self._shuffled = grain.MapDataset.source(source).seed(seed).shuffle()
        self._examples, self._kept = len(source), kept

    def __len__(self):
        return 2**31 - 1

    def __getitem__(self, position):
        epoch, offset = divmod(position, self._kept)
        return self._shuffled[epoch * self._examples + offset]


class _Share:
    """One process's rows of every global batch: contiguous, as its devices hold them.

    It is taken last, from records whose draws are made, so that these belong to the global position.
    """

    def __init__(self, records, batch_size, process, processes):
        self._records, self._batch_size, self._process = records, batch_size, process
        self.rows = batch_size // processes

    def __len__(self):
        return len(self._records) // self._batch_size * self.rows

    def __getitem__(self, position):
        batch, row = divmod(position, self.rows)
        return self._records[batch * self._batch_size + self._process * self.rows + row]


class _Prepare(grain.RandomMapTransform):
    def __init__(self, crop):
        self._crop = crop

    def random_map(self, record, rng):
        label = np.int32(record["label"])
        if self._crop is None:
            return {"image": record["image"], "label": label}
        crop = self._crop
        crops = {
            f"image_{view + 1}": transforms.random_resized_crop(
                record["image"], crop.size_px, crop.scale, crop.ratio, rng=rng
            )
            for view in range(crop.views)
        }
        return {**crops, "label": label}


class _ReadUnpaired(grain.RandomMapTransform):
    def __init__(self, source_a, source_b):
        self._source_a, self._source_b = source_a, source_b

    def random_map(self, number, rng):
        there = self._source_a[number % len(self._source_a)]
        other = self._source_b[int(rng.integers(len(self._source_b)))]
        return {"image_a": there["image"], "image_b": other["image"]}
