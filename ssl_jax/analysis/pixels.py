"""Images as vectors of their own numbers: what any network must beat."""

import jax
import jax.numpy as jnp

_MOST_NUMBERS = 3072


@jax.jit
def vectors(images: jax.Array) -> jax.Array:
    """uint8 [b, h, w, c] as float32 [b, d] in [0, 1]; above 3,072 numbers an image is shrunk to at most that many."""
    images = images.astype(jnp.float32) / 255
    count, height, width, channels = images.shape
    if height * width * channels > _MOST_NUMBERS:
        scale = (_MOST_NUMBERS / (height * width * channels)) ** 0.5
        size = (max(1, int(height * scale)), max(1, int(width * scale)))
        images = jax.image.resize(images, (count, *size, channels), "linear")
    return images.reshape(count, -1)
