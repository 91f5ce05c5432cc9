"""Data sets as `experiments.pack` leaves them, one `.npz` file each: read with numpy alone.

Every section says what it was made of (`name` and `split`, as in `data.feed` and `data.unpaired`), and by `content`
which file holds it: `<data_dir>/<content>.npz`. The end of `content` is a hash of what is inside, so that a run goes on
only with the same images. The batches are those of the sections that were packed, bit for bit.
"""

import functools
import pathlib
from collections.abc import Iterator, Mapping

import numpy as np

from ssl_jax import fingerprint
from ssl_jax.data.resident import Resident, read_npz
from ssl_jax.data.unpaired import ResidentUnpaired
from ssl_jax.types import UsageError

IMAGES, CLASS_NAMES, NAMES = ("image", "image_a", "image_b"), "class_names", "names"


def content_of(name: str, arrays: Mapping[str, np.ndarray]) -> str:
    """What `content` is for a set of that name with these entries."""
    plain = "".join(letter if letter.isalnum() else "_" for letter in name)
    return f"{plain}-{_hash(arrays)}"


def _hash(arrays):
    return fingerprint.sha256(dict(arrays))[:16]


def training(
    name: str,
    split: str,
    content: str,
    batch_size: int,
    data_dir: str = "",
    class_names: tuple[str, ...] | None = None,
    image_shape: tuple[int | None, ...] | None = None,
) -> Resident:
    """The feed that `data.feed.training` gives where it is resident.

    Args:
        name, split: what was packed.
        content: which file it is in; the hash in it is that of the file's entries.
        batch_size: images in a global batch.
        data_dir: the folder of the file.
        class_names: what the classes must be; None takes any.
        image_shape: height, width and channels that the images must have; None takes any.

    Raises:
        UsageError: for a file that is missing or holds something else, or a batch larger than the set.
    """
    arrays = _read(data_dir, content, ("image",))
    there = arrays.pop(CLASS_NAMES)
    if class_names is not None and tuple(class_names) != there:
        raise UsageError(f"{content} has the classes {', '.join(there) or 'of no name'}, and the run has others")
    wanted = image_shape or (None, None, None)
    if any(size not in (None, actual) for size, actual in zip(wanted, arrays["image"].shape[1:], strict=True)):
        raise UsageError(f"{content} has images of {arrays['image'].shape[1:]} (h, w, c), and the run takes {wanted}")
    del arrays[NAMES], name, split
    return Resident(arrays, batch_size)


def unpaired(
    name_a: str,
    split_a: str,
    name_b: str,
    split_b: str,
    content: str,
    batch_size: int,
    data_dir: str = "",
) -> ResidentUnpaired:
    """The feed that `data.unpaired.training` gives where it is resident; arguments and failures as of `training`."""
    del name_a, split_a, name_b, split_b
    arrays = _read(data_dir, content, ("image_a", "image_b"))
    return ResidentUnpaired(arrays["image_a"], arrays["image_b"], batch_size)


class Evaluation:
    """Images in the place of `data.feed.Evaluation` and `data.unpaired.Test`: see `types.Examples`."""

    _images: tuple[str, ...] = ("image",)

    def __init__(
        self,
        name: str,
        split: str,
        content: str,
        data_dir: str = "",
        batch_size: int = 256,
        class_names: tuple[str, ...] | None = None,
    ):
        """Args:
            name, split, content, data_dir, class_names: as of `training`.
            batch_size: images in a batch; the last is padded and masked.

        Raises:
            UsageError: as of `training`.
        """
        self._arrays = _read(data_dir, content, self._images)
        del name
        self._split = split
        self.class_names: tuple[str, ...] = self._arrays.pop(CLASS_NAMES)
        self._names: tuple[str, ...] = self._arrays.pop(NAMES)
        if class_names is not None and tuple(class_names) != self.class_names:
            raise UsageError(f"{content} has the classes {', '.join(self.class_names) or 'of no name'}, not the run's")
        self.examples = len(self._arrays["label"])
        if batch_size < 1:
            raise UsageError(f"batch_size={batch_size}: a batch holds at least 1 image")
        self._batch_size = min(batch_size, self.examples)

    def labels(self) -> np.ndarray:
        """See `types.Examples.labels`."""
        return self._arrays["label"]

    def names(self) -> tuple[str, ...]:
        """What the set calls its images; without such names the split and the row, such as "test 17"."""
        return self._names or tuple(f"{self._split} {row}" for row in range(self.examples))

    def batches(self) -> Iterator[Mapping[str, np.ndarray]]:
        """See `types.Examples.batches`."""
        for start in range(0, self.examples, self._batch_size):
            rows = {key: array[start : start + self._batch_size] for key, array in self._arrays.items()}
            real = min(self._batch_size, self.examples - start)
            padded = {
                key: np.pad(a, [(0, self._batch_size - real)] + [(0, 0)] * (a.ndim - 1)) for key, a in rows.items()
            }
            yield {**padded, "mask": np.arange(self._batch_size) < real}


class Pairs(Evaluation):
    """Images of A with their true counterparts in B, in the place of `data.unpaired.Pairs`."""

    _images = ("image_a", "image_b")

    def __init__(
        self,
        name_a: str,
        split_a: str,
        name_b: str,
        split_b: str,
        content: str,
        data_dir: str = "",
        batch_size: int = 64,
    ):
        """Args: as of `Evaluation`, for each domain."""
        del name_b, split_b
        super().__init__(name_a, split_a, content, data_dir, batch_size)


@functools.lru_cache(maxsize=8)
def _read_once(file: str, changed: int) -> Mapping[str, np.ndarray]:
    """Several sections read one file: it is in memory once."""
    del changed
    return read_npz(file, (*IMAGES, "label", CLASS_NAMES, NAMES))


def _read(data_dir, content, images):
    """The named arrays of a packed file and its `label`, and the names of classes and images as tuples."""
    path = pathlib.Path(data_dir).expanduser() / f"{content}.npz"
    if not path.is_file():
        raise UsageError(
            f"there is no file {path}: copy it there from where experiments.pack wrote it, "
            "or name its folder as data_dir"
        )
    entries = _read_once(str(path.resolve()), path.stat().st_mtime_ns)
    missing = [key for key in images if key not in entries]
    if missing or any(entries[key].dtype != np.uint8 or entries[key].ndim != 4 for key in images):
        raise UsageError(f"{path} holds no {missing[0] if missing else 'uint8 [n, h, w, c]'}: pack the config again")
    if not content.endswith(f"-{_hash(entries)}"):
        raise UsageError(f"{path} does not hold what its name says: copy it again from where experiments.pack wrote it")
    names = {key: tuple(entries[key].tolist()) if key in entries else () for key in (CLASS_NAMES, NAMES)}
    label = {"label": entries["label"]} if "label" in entries else {}
    return {**{key: entries[key] for key in images}, **label, **names}
