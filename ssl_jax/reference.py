"""What real images look like to a fixed network: the side of every distance that stays the same, and so is kept."""

import dataclasses
import functools
import hashlib
import os
import pathlib
import tempfile
from collections.abc import Iterable, Iterator

import numpy as np

from ssl_jax import archive, fingerprint, log, types
from ssl_jax.analysis.generative import Moments

_FORMAT = "ssl_jax statistics 1"
"""Part of every key; another for every change of what is kept or how it is computed."""
_CHECKSUM = "sha256"


@dataclasses.dataclass(frozen=True, eq=False)
class Statistics:
    """A set of images through the eyes of a network.

    Attributes:
        moments: of the features of all images.
        features: float32 [m, d], of images evenly spread over the set, or of all.
        logits: float32 [m, k] of the same images; None where the network has none.
        image_shape: height, width and channels.
        from_cache: whether they were read from a file instead of computed.
    """

    moments: Moments
    features: np.ndarray
    logits: np.ndarray | None
    image_shape: tuple[int, int, int]
    from_cache: bool = False

    @property
    def count(self) -> int:
        """How many images they were taken over."""
        return self.moments.count


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """A set of real images and the network that looks at it.

    Their statistics are computed once and kept in a file, whose name is a hash of all that they depend on: the pixels
    of all images in order (and with them data set, split and size), the network, its preparation of images, and `keep`.

    Attributes:
        examples: the real images; labels are not looked at.
        extractor: the network, see `types.Extractor`.
        cache: the folder of such files; "" is `ssl_jax/statistics` in `$XDG_CACHE_HOME` or `~/.cache`.
        keep: how many images at most to hold the features of, evenly spread over the set.

    Raises:
        UsageError: for an empty set, or fewer than 2 images to keep.
    """

    examples: types.Examples
    extractor: types.Extractor
    cache: str = ""
    keep: int = 10_000

    def __post_init__(self):
        if self.examples.examples < 1 or self.keep < 2:
            raise types.UsageError(
                f"reference.Reference: keep={self.keep} of {self.examples.examples} images; keep 2 or more of a set "
                "that has some"
            )

    @property
    def kept(self) -> int:
        """How many images `Statistics.features` will be of."""
        return min(self.keep, self.examples.examples)

    def statistics(self) -> Statistics:
        """The statistics: from this object, from the file, or computed, which reads the set twice.

        Raises:
            RunError: for a damaged file, or one that cannot be written.
        """
        return self._statistics

    @functools.cached_property
    def _statistics(self) -> Statistics:
        path = self._folder() / f"{self.key()}.npz"
        if path.is_file():
            return _read(path)
        found = gather(self.extractor, images_of(self.examples), self.examples.examples, keep=self.keep)
        _write(found, path)
        return found

    def key(self) -> str:
        """64 hexadecimal digits, others for any other images, network, preparation or number to keep."""
        digest = hashlib.sha256(f"{_FORMAT}\n{self.extractor.digest}\n{self.extractor.resize}\n{self.keep}\n".encode())
        for place, images in enumerate(images_of(self.examples)):
            if place == 0:
                digest.update(f"{images.dtype} {images.shape[1:]}\n".encode())
            digest.update(np.ascontiguousarray(images).tobytes())
        return digest.hexdigest()

    def _folder(self) -> pathlib.Path:
        if self.cache:
            return pathlib.Path(self.cache).expanduser()
        return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "ssl_jax" / "statistics"


def gather(
    extractor: types.Extractor, batches: Iterable[np.ndarray], count: int, *, keep: int, keep_logits: int | None = None
) -> Statistics:
    """The statistics of `count` images that come in batches uint8 [b, h, w, c], read once.

    Args:
        extractor: the network.
        batches: together `count` images or more; what is beyond them is left out.
        count: at least 1.
        keep: how many images at most to hold the features of, evenly spread over all.
        keep_logits: the same of the logits; None takes `keep`.

    Raises:
        UsageError: for features that are not finite.
        RunError: where fewer images come than `count`.
    """
    wanted, wanted_logits = (
        np.linspace(0, count - 1, min(most, count)).round().astype(np.int64)
        for most in (keep, keep if keep_logits is None else keep_logits)
    )
    moments, shape, features, logits, first = None, None, [], [], 0
    for images in batches:
        images = images[: count - first]
        seen, said = extractor(images)
        moments = (Moments.empty(seen.shape[1]) if moments is None else moments).updated(seen)
        here, here_logits = (
            rows[(rows >= first) & (rows < first + len(images))] - first for rows in (wanted, wanted_logits)
        )
        features.append(seen[here])
        logits.append(None if said is None else said[here_logits])
        shape, first = images.shape[1:], first + len(images)
        if first == count:
            answers = None if logits[0] is None else np.concatenate(logits)
            return Statistics(moments, np.concatenate(features), answers, shape)
    raise types.RunError(f"{count} images were to be looked at, and only {first} came")


def images_of(examples: types.Examples) -> Iterator[np.ndarray]:
    """The images of a set in order, without padding: batches uint8 [b, h, w, c], the last one perhaps smaller."""
    for batch in examples.batches():
        yield np.asarray(batch["image"])[np.asarray(batch["mask"], bool)]


def _write(found: Statistics, path: pathlib.Path) -> None:
    arrays = {
        "count": np.int64(found.count),
        "mean": found.moments.mean,
        "scatter": found.moments.scatter,
        "features": found.features,
        "image_shape": np.asarray(found.image_shape),
    }
    if found.logits is not None:
        arrays["logits"] = found.logits
    with log.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # In a folder of its own first: two runs that start together may compute and write the same.
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            whole = pathlib.Path(folder) / path.name
            log.replace(whole, {**arrays, _CHECKSUM: np.array(fingerprint.sha256(arrays))})
            os.replace(whole, path)


def _read(path: pathlib.Path) -> Statistics:
    try:
        arrays = archive.read(path)
        if str(arrays.pop(_CHECKSUM)) != fingerprint.sha256(arrays):
            raise ValueError("its arrays are not those that were written")
        return Statistics(
            moments=Moments(int(arrays["count"]), arrays["mean"], arrays["scatter"]),
            features=arrays["features"],
            logits=arrays.get("logits"),
            image_shape=tuple(int(side) for side in arrays["image_shape"]),
            from_cache=True,
        )
    except Exception as error:  # a damaged archive makes zipfile, zlib and numpy raise what they like
        reason = f"no entry {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise types.RunError(
            f"{path}, which keeps statistics of real images, is damaged ({reason}): delete it"
        ) from error
