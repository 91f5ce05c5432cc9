"""A data set that lies on the device: the batch of step s is a function of (seed, s), so there is nothing to resume."""

import functools
import pathlib
from collections.abc import Iterator, Mapping

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from ssl_jax import archive, rng
from ssl_jax.types import Batch, UsageError


class Resident:
    """A training feed over arrays in device memory.

    Every epoch is a new permutation; what the batch size leaves over is dropped, as the SimSiam code does. The order is
    drawn and the batch gathered on the device, so a batch costs no transfer.
    """

    def __init__(
        self, arrays: Mapping[str, np.ndarray], batch_size: int, chosen: Mapping[str, np.ndarray] | None = None
    ):
        """Args:
            arrays: `image` uint8 [n, h, w, c] and whatever else has n rows.
            batch_size: images in a global batch.
            chosen: see `types.Feed`.

        Raises:
            UsageError: for a batch larger than the set, or arrays of different lengths.
        """
        lengths = {name: len(array) for name, array in arrays.items()}
        if len(set(lengths.values())) > 1:
            raise UsageError(f"the arrays must have one row an image, but have {lengths}")
        self.examples = len(arrays["image"])
        self.batch_size = batch_size
        self.chosen = dict(chosen or {})
        check_size(batch_size, self.examples)
        self.arrays = arrays
        self.spec = {
            name: jax.ShapeDtypeStruct((batch_size, *array.shape[1:]), array.dtype) for name, array in arrays.items()
        }

    def batches(self, mesh: jax.sharding.Mesh, seed: int, first_step: int) -> Iterator[Batch]:
        """See `types.Feed.batches`."""
        everywhere, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        arrays = {
            name: jax.make_array_from_callback(array.shape, everywhere, array.__getitem__)
            for name, array in self.arrays.items()
        }
        shuffle = jax.jit(functools.partial(_order, seed=seed, examples=self.examples), out_shardings=everywhere)
        take = jax.jit(functools.partial(_take, batch_size=self.batch_size), out_shardings=split)
        steps_per_epoch = self.examples // self.batch_size
        epoch, order = -1, None
        step = first_step
        while True:
            if step // steps_per_epoch != epoch:
                epoch = step // steps_per_epoch
                order = shuffle(np.int32(epoch))
            yield take(arrays, order, np.int32(step % steps_per_epoch))
            step += 1


def npz(file: str, batch_size: int) -> Resident:
    """A resident feed from an `.npz` file with `image` uint8 [n, h, w, c] and, if there are labels, `label` [n].

    For machines that have no TFDS and no network.

    Raises:
        UsageError: for a file that is missing or holds something else.
    """
    arrays = read_npz(file, ("image", "label"))
    if "image" not in arrays or arrays["image"].dtype != np.uint8 or arrays["image"].ndim != 4:
        raise UsageError(f"{file} needs an entry `image`, uint8 [n, h, w, c]")
    if "label" in arrays:
        if arrays["label"].ndim != 1 or arrays["label"].dtype.kind not in "iu":
            raise UsageError(f"{file}: `label` must be integers [n]")
        arrays["label"] = arrays["label"].astype(np.int32)
    try:
        return Resident(arrays, batch_size)
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from error


def read_npz(file: str, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Those of the named entries of an `.npz` file that it has.

    Raises:
        UsageError: for a file that is missing, or is none.
    """
    path = pathlib.Path(file)
    if not path.is_file():
        raise UsageError(f"no file {file}")
    try:
        return archive.read(path, names)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{file} is no .npz file of arrays ({reason}): write it with numpy.savez") from error


def noise(shape: tuple[int, int, int, int], batch_size: int) -> Resident:
    """A resident feed of uniform noise, uint8 of `shape` [n, h, w, c], for timing a machine that has no data."""
    return Resident({"image": noise_images(shape, 0), "label": np.zeros(shape[0], np.int32)}, batch_size)


def noise_images(shape: tuple[int, int, int, int], number: int) -> np.ndarray:
    """Uniform noise, uint8 of `shape` [n, h, w, c]; each `number` gives another."""
    return np.asarray(jax.random.randint(rng.stream(0, "noise", number), shape, 0, 256, np.uint8))


def check_size(batch_size: int, examples: int) -> None:
    """Raises UsageError when a batch cannot be filled."""
    if not 1 <= batch_size <= examples:
        raise UsageError(f"batch_size={batch_size}, but the data set has {examples} images: take 1 to {examples}")


def _order(epoch, *, seed, examples):
    return jax.random.permutation(rng.stream(seed, "shuffle", epoch), examples)


def _take(arrays, order, position, *, batch_size):
    chosen = jax.lax.dynamic_slice_in_dim(order, position * batch_size, batch_size)
    return {name: array[chosen] for name, array in arrays.items()}
