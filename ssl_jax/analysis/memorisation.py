"""Does a generator repeat its training images? The real images nearest to each sample, by their pixels."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax import types


@dataclasses.dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest images of a set to each of some queries, the nearest first.

    Attributes:
        distances: float64 [q, k], the L2 norm of the difference of pixels in [0, 1].
        rows: int64 [q, k], where they lie in the set.
        images: uint8 [q, k, h, w, c].
    """

    distances: np.ndarray
    rows: np.ndarray
    images: np.ndarray


def nearest(
    queries: np.ndarray, examples: types.Examples, count: int, *, own_rows: np.ndarray | None = None
) -> Neighbours:
    """The `count` images of a set that differ least from each query; the set passes by once, batch by batch.

    Args:
        queries: uint8 [q, h, w, c].
        examples: a set of images of that shape.
        count: 1 to the number of images.
        own_rows: int [q], where the queries lie themselves in the set: there each is not its own neighbour.

    Raises:
        UsageError: for another count.
    """
    available = examples.examples - (own_rows is not None)
    if not 1 <= count <= available:
        raise types.UsageError(f"{count} nearest images of {available}: ask for 1 to {available}")
    own_rows = np.full(len(queries), -1) if own_rows is None else np.asarray(own_rows)
    squared = np.full((len(queries), count), np.inf, np.float32)
    rows = np.full((len(queries), count), -1)
    images = np.zeros((len(queries), count, *queries.shape[1:]), np.uint8)
    first = 0
    for batch in examples.batches():
        numbers = first + np.arange(len(batch["image"]))
        first += len(numbers)
        barred = ~batch["mask"][None] | (numbers[None] == own_rows[:, None])
        values, places = _closest(queries, batch["image"], barred, min(count, len(numbers)))
        squared = np.concatenate([squared, np.asarray(values)], axis=1)
        # Stable, so that of equals the earlier row stays first.
        kept = np.argsort(squared, axis=1, kind="stable")[:, :count]
        squared = np.take_along_axis(squared, kept, axis=1)
        rows = np.take_along_axis(np.concatenate([rows, numbers[places]], axis=1), kept, axis=1)
        joined = np.concatenate([images, batch["image"][places]], axis=1)
        images = np.take_along_axis(joined, kept[:, :, None, None, None], axis=1)
    # Again and exactly: the search's float32 products leave a copy at a small distance, not at 0.
    differences = (images.astype(np.float64) - queries[:, None]) / 255
    distances = np.sqrt(np.sum(differences**2, axis=(2, 3, 4)))
    order = np.argsort(distances, axis=1, kind="stable")
    return Neighbours(
        np.take_along_axis(distances, order, axis=1),
        np.take_along_axis(rows, order, axis=1),
        np.take_along_axis(images, order[:, :, None, None, None], axis=1),
    )


@functools.partial(jax.jit, static_argnums=3)
def _closest(queries, images, barred, count):
    """Squared distances [q, count], infinite where barred, and places int32 [q, count] in the batch."""
    queries, images = (x.reshape(len(x), -1).astype(jnp.float32) / 255 for x in (queries, images))
    # The default precision on accelerators has ten bits, too few to order close neighbours.
    products = jnp.matmul(queries, images.T, precision=jax.lax.Precision.HIGHEST)
    squared = jnp.sum(queries**2, axis=1)[:, None] - 2.0 * products + jnp.sum(images**2, axis=1)[None]
    values, places = jax.lax.top_k(jnp.where(barred, -jnp.inf, -squared), count)
    return -values, places
