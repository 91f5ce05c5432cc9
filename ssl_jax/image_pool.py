"""The pool of earlier translations that a discriminator learns from (Shrivastava et al., arXiv 1612.07828), as arrays.

As the reference implementation's image_pool.py: images come one after the other; while the pool is not full, each is
kept and handed on; then half of them are handed on alone, and half take the place of a random earlier one, which is
handed on in their stead.
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp

from ssl_jax import rng
from ssl_jax.types import UsageError


@flax.struct.dataclass
class Contents:
    """What pools hold.

    Attributes:
        images: float [pools, size, h, w, c]; zeros where nothing was kept yet. Of size 0 one place that stays empty,
            because a checkpoint holds no empty arrays.
        filled: int32 [pools], how many there are.
    """

    images: jax.Array
    filled: jax.Array


@dataclasses.dataclass(frozen=True)
class ImagePool:
    """One or several pools of the same size.

    Attributes:
        size: images in a pool, 50 in the paper; 0 hands every image on.
        pools: each serves its own part of every batch, contiguous rows, as one process of several each with its own
            pool would. The number belongs to the experiment: another one hands on other images.

    Raises:
        UsageError: for a negative size, or no pool.
    """

    size: int = 50
    pools: int = 1

    def __post_init__(self):
        if self.size < 0 or self.pools < 1:
            raise UsageError(f"size={self.size} must be at least 0 and pools={self.pools} at least 1")

    def empty(self, images: jax.ShapeDtypeStruct | jax.Array) -> Contents:
        """Pools for batches [b, h, w, c].

        Raises:
            UsageError: for a batch that the pools do not divide.
        """
        if images.shape[0] % self.pools:
            raise UsageError(
                f"a batch of {images.shape[0]} images is not divided by pools={self.pools}: change the batch_size, or "
                "the pools of config.method.pool"
            )
        kept = jnp.zeros((self.pools, max(self.size, 1), *images.shape[1:]), images.dtype)
        return Contents(images=kept, filled=jnp.zeros(self.pools, jnp.int32))

    def exchange(self, contents: Contents, images: jax.Array, key: jax.Array) -> tuple[Contents, jax.Array]:
        """Hands on a batch [b, h, w, c] or, in part, earlier images instead of it."""
        swaps, places = self.draws(key, len(images))
        return self.exchange_as_drawn(contents, images, swaps, places)

    def draws(self, key: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
        """For each of `count` images whether it changes places, bool, and with which of a full pool, int32."""
        swaps = jax.random.uniform(rng.child(key, "swap"), (count,)) > 0.5
        return swaps, jax.random.randint(rng.child(key, "place"), (count,), 0, max(self.size, 1), jnp.int32)

    def exchange_as_drawn(
        self, contents: Contents, images: jax.Array, swaps: jax.Array, places: jax.Array
    ) -> tuple[Contents, jax.Array]:
        """`exchange` with the draws given, [b] each; they matter once a pool is full."""
        if self.size == 0:
            return contents, images

        def one(kept_and_filled, arrival):
            kept, filled = kept_and_filled
            image, swaps, place = arrival
            full = filled >= self.size
            place = jnp.where(full, place, filled)
            earlier = kept[place]
            enters = ~full | swaps
            kept = kept.at[place].set(jnp.where(enters, image, earlier))
            handed_on = jnp.where(full & swaps, earlier, image)
            return (kept, jnp.minimum(filled + 1, self.size)), handed_on

        def of_one_pool(kept, filled, images, swaps, places):
            return jax.lax.scan(one, (kept, filled), (images, swaps, places))

        parts = [array.reshape(self.pools, -1, *array.shape[1:]) for array in (images, swaps, places)]
        (kept, filled), handed_on = jax.vmap(of_one_pool)(contents.images, contents.filled, *parts)
        return Contents(images=kept, filled=filled), handed_on.reshape(images.shape)
