import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import rng
from ssl_jax.image_pool import ImagePool
from ssl_jax.types import UsageError

IMAGE = (2, 3, 1)


class PlainPool:
    """The reference implementation's ImagePool.query, its two random choices taken from given lists."""

    def __init__(self, size):
        self.size, self.images = size, []

    def query(self, images, swaps, places):
        if self.size == 0:
            return images
        handed_on = []
        for image, swap, place in zip(images, swaps, places, strict=True):
            if len(self.images) < self.size:
                self.images.append(image)
                handed_on.append(image)
            elif swap:
                handed_on.append(self.images[place])
                self.images[place] = image
            else:
                handed_on.append(image)
        return np.stack(handed_on)


def numbered(first, count):
    """Images that tell each other apart."""
    return np.arange(first, first + count, dtype=np.float32).reshape(-1, 1, 1, 1) * np.ones((1, *IMAGE), np.float32)


@pytest.mark.parametrize(("size", "pools", "batch"), [(5, 1, 1), (5, 1, 3), (7, 2, 4), (3, 1, 8), (0, 1, 2)])
def test_a_pool_does_what_a_plain_one_does_on_the_same_choices(size, pools, batch):
    pool = ImagePool(size, pools)
    plain = [PlainPool(size) for _ in range(pools)]
    contents = pool.empty(jax.ShapeDtypeStruct((batch, *IMAGE), jnp.float32))
    exchange = jax.jit(pool.exchange)
    for step in range(12):
        images, key = numbered(100 * step, batch), rng.stream(0, "pool", step)
        swaps, places = (np.asarray(each) for each in pool.draws(key, batch))
        contents, found = exchange(contents, images, key)
        parts = [np.split(each, pools) for each in (images, swaps, places)]
        wanted = np.concatenate([one.query(*part) for one, *part in zip(plain, *parts, strict=True)])
        np.testing.assert_array_equal(found, wanted)
    if size:
        np.testing.assert_array_equal(contents.images, np.stack([one.images for one in plain]))
        np.testing.assert_array_equal(contents.filled, size)


def test_choices_are_fair_and_belong_to_the_key():
    pool = ImagePool(50)
    swaps, places = (np.asarray(each) for each in pool.draws(jax.random.key(0), 20_000))
    assert abs(swaps.mean() - 0.5) < 0.02
    counts = np.bincount(places, minlength=50)
    assert len(counts) == 50 and counts.min() > 300 and counts.max() < 500
    others, _ = pool.draws(jax.random.key(1), 20_000)
    assert 0.4 < np.mean(np.asarray(others) != swaps) < 0.6
    # Whether an image enters says nothing about where.
    assert abs(places[swaps].mean() - places[~swaps].mean()) < 1


def test_a_pool_that_is_not_full_keeps_what_comes_first():
    pool = ImagePool(4)
    contents = pool.empty(jnp.zeros((3, *IMAGE)))
    contents, found = pool.exchange(contents, numbered(0, 3), jax.random.key(random.randrange(10)))
    np.testing.assert_array_equal(found, numbered(0, 3))
    assert contents.filled.tolist() == [3]
    np.testing.assert_array_equal(contents.images[0, :3], numbered(0, 3))


def test_a_pool_of_no_size_is_an_array_that_a_checkpoint_can_hold():
    contents = ImagePool(0, 2).empty(jnp.zeros((4, *IMAGE)))
    assert contents.images.shape == (2, 1, *IMAGE) and contents.filled.tolist() == [0, 0]


def test_errors():
    for size, pools in ((-1, 1), (5, 0)):
        with pytest.raises(UsageError, match=f"size={size} must be at least 0 and pools={pools} at least 1"):
            ImagePool(size, pools)
    with pytest.raises(UsageError, match="a batch of 3 images is not divided by pools=2"):
        ImagePool(5, 2).empty(jnp.zeros((3, *IMAGE)))
