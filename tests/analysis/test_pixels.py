"""Images as vectors: every number in order over 255, fewer of them where they are many."""

import numpy as np

from ssl_jax.analysis import pixels


def test_small_images_keep_every_number():
    images = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
    np.testing.assert_allclose(pixels.vectors(images), images.reshape(2, 36) / 255, rtol=1e-6)


def test_large_images_are_shrunk_to_at_most_3072_numbers():
    large = np.repeat(np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1) * 60, 100, axis=1).repeat(50, 2).repeat(3, 3)
    small = np.asarray(pixels.vectors(large))
    assert small.shape[1] <= 3072 and small.shape[1] > 2500
    np.testing.assert_allclose(small[3], 180 / 255, atol=1e-5)
