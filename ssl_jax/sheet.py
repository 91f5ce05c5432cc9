"""Many images as one picture."""

import math

import numpy as np


def grid(images: np.ndarray, columns: int, scale_px: int = 64) -> np.ndarray:
    """Images side by side as one picture, uint8 [h, w, 3].

    Args:
        images: [n, h, w, c] with c 1 or 3; uint8, or float in [-1, 1], beyond which it is cut.
        columns: images in a row.
        scale_px: small images are enlarged by the largest whole factor that keeps their longer side within it.

    Raises ValueError for another type or shape, or for no image.
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or not len(images):
        raise ValueError(f"a grid takes images [n, h, w, 1 or 3], n at least 1, not {images.shape}")
    if np.issubdtype(images.dtype, np.floating):
        images = as_bytes(images)
    elif images.dtype != np.uint8:
        raise ValueError(f"a grid takes uint8, or float in [-1, 1], not {images.dtype}")
    factor = max(1, scale_px // max(images.shape[1:3]))
    images = images.repeat(factor, axis=1).repeat(factor, axis=2)
    images = np.broadcast_to(images, (*images.shape[:3], 3))
    count, height, width, _ = images.shape
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    gap = 2
    picture = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 128, np.uint8)
    for place, image in enumerate(images):
        top, left = place // columns * (height + gap), place % columns * (width + gap)
        picture[top : top + height, left : left + width] = image
    return picture


def coloured(images: np.ndarray) -> np.ndarray:
    """uint8 [..., c] as uint8 [..., 3]; channels that make no colours as their mean."""
    if images.shape[-1] != 3:
        images = np.rint(images.mean(axis=-1, keepdims=True)).astype(np.uint8)
    return np.broadcast_to(images, (*images.shape[:-1], 3))


def as_bytes(images: np.ndarray) -> np.ndarray:
    """Floats in [-1, 1], beyond which they are cut, as uint8 of the same shape, rounded to the nearest."""
    return np.rint((np.clip(np.asarray(images, np.float32), -1, 1) + 1) * 127.5).astype(np.uint8)
