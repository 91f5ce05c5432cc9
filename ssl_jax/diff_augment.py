"""DiffAugment: the same random changes to real and generated images, inside the adversarial step.

Zhao et al. 2020 (arXiv 2006.10738) and the authors' `DiffAugment_pytorch.py`. Every operation is differentiable, so the
generator learns through it and gradient penalties are taken with respect to the images before it.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from ssl_jax import image_ops, rng, schedules
from ssl_jax.types import UsageError

Operation = Literal["brightness", "saturation", "contrast", "translation", "cutout"]
OPERATIONS = ("brightness", "saturation", "contrast", "translation", "cutout")


@dataclasses.dataclass(frozen=True)
class DiffAugment:
    """Random changes of images in [-1, 1], called as `change(images, key, step)`.

    - brightness: adds U(-0.5, 0.5);
    - saturation: scales the distance of each pixel's channels from their mean by U(0, 2);
    - contrast: scales the distance of all values from the image's mean by U(0.5, 1.5);
    - translation: moves by up to an eighth of the side each way, zeros coming in;
    - cutout: a square of half the side becomes zero, wherever its centre falls.

    The authors' policies are "color,translation,cutout" (all five, the default) and "translation,cutout".

    Attributes:
        operations: which of these, always applied in the order above.
        probability: of each operation for each image, constant or scheduled; the authors apply all always, R3GAN's
            recipe raises it from 0 to 0.55 over the burn-in (there with the operations of StyleGAN2-ADA).

    Raises:
        UsageError: for an operation that is none of these, or a probability outside [0, 1].
    """

    operations: tuple[Operation, ...] = OPERATIONS
    probability: float | schedules.Schedule = 1.0

    def __post_init__(self):
        unknown = [name for name in self.operations if name not in OPERATIONS]
        if unknown:
            raise UsageError(f"operations: {unknown[0]!r} is none of {', '.join(OPERATIONS)}")
        if not callable(self.probability) and not 0 <= self.probability <= 1:
            raise UsageError(f"probability={self.probability}: it must be within [0, 1]")

    def __call__(self, images: jax.Array, key: jax.Array, step: int | jax.Array) -> jax.Array:
        """float [b, h, w, c] to the same, every image with its own draws."""
        probability = schedules.at(self.probability, step)
        for name in OPERATIONS:
            if name in self.operations:
                unit = jax.random.uniform(rng.child(key, name), (images.shape[0], 3), jnp.float32)
                changed = _CHANGES[name](images, unit)
                images = jnp.where(image_ops.per_image(unit[:, 2] < probability), changed, images)
        return images


def _brightness(images, unit):
    return images + _per_image(unit[:, 0] - 0.5, images)


def _saturation(images, unit):
    mean = jnp.mean(images, axis=3, keepdims=True)
    return (images - mean) * _per_image(2.0 * unit[:, 0], images) + mean


def _contrast(images, unit):
    mean = jnp.mean(images, axis=(1, 2, 3), keepdims=True)
    return (images - mean) * _per_image(0.5 + unit[:, 0], images) + mean


def _translation(images, unit):
    down, right = (_whole(unit[:, axis], images.shape[1 + axis]) for axis in (0, 1))
    return image_ops.shift_crop(images, down, right).astype(images.dtype)


def _whole(unit, side_px):
    """Whole shifts, uniform over -limit .. limit, the limit an eighth of the side, rounded."""
    limit_px = int(side_px * 0.125 + 0.5)
    return jnp.floor(unit * (2 * limit_px + 1)).astype(jnp.int32) - limit_px


def _cutout(images, unit):
    inside = [_covered(unit[:, axis], images.shape[1 + axis]) for axis in (0, 1)]
    hole = inside[0][:, :, None, None] & inside[1][:, None, :, None]
    return jnp.where(hole, jnp.zeros_like(images), images)


def _covered(unit, side_px):
    """bool [b, side_px]: half the side, its beginning uniform so that the hole's centre lies anywhere in the image."""
    hole_px = int(side_px * 0.5 + 0.5)
    centre = jnp.floor(unit * (side_px + 1 - hole_px % 2)).astype(jnp.int32).reshape(-1, 1)
    places = jnp.arange(side_px).reshape(1, -1)
    return (places >= centre - hole_px // 2) & (places < centre - hole_px // 2 + hole_px)


def _per_image(values, images):
    return image_ops.per_image(values).astype(images.dtype)


_CHANGES = {
    "brightness": _brightness,
    "saturation": _saturation,
    "contrast": _contrast,
    "translation": _translation,
    "cutout": _cutout,
}
