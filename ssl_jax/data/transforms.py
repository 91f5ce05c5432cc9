"""What happens to one image on the host: decoding and the geometry that gives images of all sizes one size.

Images are uint8 [h, w, c] with values 0 to 255, c = 1 (grey) or 3 (red, green, blue). All functions are deterministic
in their arguments, the generator included.
"""

import math

import cv2
import numpy as np

from ssl_jax import types
from ssl_jax.data import headers

TRIES = 10
# What its decoders have to say comes as our own error, with the file's name, and not beside it.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def decode(data: bytes, channels: int) -> np.ndarray:
    """The pixels of one PNG, JPEG, WebP, GIF or BMP file; of an animation the first frame.

    The size that it declares is looked at before anything is decoded, see `headers.check`. Alpha is dropped, 16-bit
    values keep their upper 8 bits, palette and CMYK become red, green, blue, and an orientation tag is ignored, so that
    the shape is the stored one. A colour file read with `channels=1` becomes luma.

    Args:
        data: the whole file.
        channels: 1 or 3.

    Returns:
        uint8 [h, w, channels].

    Raises:
        ValueError: the bytes are no image that OpenCV can decode, or one of more pixels than are decoded.
    """
    if not data:
        raise ValueError("no bytes")
    headers.check(data)
    colour = cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR_RGB
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), colour | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise ValueError(f"OpenCV: {' '.join(str(error.err).split())}") from error
    if image is None:
        raise ValueError("not a whole image that OpenCV can decode")
    return image[..., None] if image.ndim == 2 else image


def crop_box(
    height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float], rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Where a random resized crop lies, by torchvision's `RandomResizedCrop.get_params`.

    Ten times an area (uniform in `scale`, a fraction of the image's) and an aspect ratio (log-uniform in `ratio`) are
    drawn until the box fits; else the largest central box whose ratio is within `ratio` is taken.

    Returns:
        (top, left, height, width) in pixels.
    """
    for _ in range(TRIES):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        box_width, box_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < box_width <= width and 0 < box_height <= height:
            top = int(rng.integers(0, height - box_height + 1))
            left = int(rng.integers(0, width - box_width + 1))
            return top, left, box_height, box_width
    box_height, box_width = height, width
    if width / height < ratio[0]:
        box_height = round(width / ratio[0])
    elif width / height > ratio[1]:
        box_width = round(height * ratio[1])
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def random_resized_crop(
    image: np.ndarray,
    size_px: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    rng: np.random.Generator,
) -> np.ndarray:
    """A random part of the image, resized to a square: torchvision's `RandomResizedCrop`.

    Departure: torchvision on Pillow images shrinks with an antialiased triangle filter, here OpenCV averages over pixel
    areas (`INTER_AREA`), which is 1.6 times as fast with the decoding (256 px to 224 px) and a little sharper. Sides
    that grow are interpolated linearly in both.

    Args:
        image: uint8 [h, w, c].
        size_px: side of the result.
        scale: least and greatest area of the part, as fractions of the image's.
        ratio: least and greatest aspect ratio, width over height, before the resize.
        rng: where the box is drawn from.

    Returns:
        uint8 [size_px, size_px, c].
    """
    top, left, height, width = crop_box(*image.shape[:2], scale, ratio, rng)
    return _resize(image[top : top + height, left : left + width], size_px, size_px)


def resize_shorter(image: np.ndarray, size_px: int) -> np.ndarray:
    """The image with its shorter side made `size_px` and its proportions kept, by torchvision's `Resize(size_px)`.

    Returns:
        uint8 [size_px, w, c] or [h, size_px, c]; the longer side is rounded down.
    """
    height, width = image.shape[:2]
    if height <= width:
        return _resize(image, size_px, int(size_px * width / height))
    return _resize(image, int(size_px * height / width), size_px)


def center_crop(image: np.ndarray, size_px: int) -> np.ndarray:
    """The central square of side `size_px`, by torchvision's `CenterCrop`, except that a small image is an error.

    Returns:
        uint8 [size_px, size_px, c], a view of `image`.

    Raises:
        types.UsageError: the image is smaller than the square.
    """
    height, width = image.shape[:2]
    if min(height, width) < size_px:
        raise types.UsageError(
            f"an image of {height}x{width} px is smaller than the crop of {size_px} px: "
            "crop less, or resize to the shorter side first"
        )
    top, left = round((height - size_px) / 2), round((width - size_px) / 2)
    return image[top : top + size_px, left : left + size_px]


def evaluation_crop(image: np.ndarray, size_px: int) -> np.ndarray:
    """What evaluation sees of an image of any size: the shorter side 8/7 of `size_px` (256 for 224), then the centre.

    Returns:
        uint8 [size_px, size_px, c].
    """
    return center_crop(resize_shorter(image, round(size_px * 8 / 7)), size_px)


def cover(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The image resized, its proportions kept, until it just covers the frame, and the centre of that.

    Returns:
        uint8 [height, width, c]; the image itself where it has that size already.
    """
    scale = max(height / image.shape[0], width / image.shape[1])
    tall, wide = (max(least, round(side * scale)) for least, side in zip((height, width), image.shape, strict=False))
    image = _resize(image, tall, wide)
    top, left = (tall - height) // 2, (wide - width) // 2
    return image[top : top + height, left : left + width]


def _resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    # Two passes, because INTER_AREA degenerates to nearest-neighbour steps on a side that grows, and INTER_LINEAR
    # aliases on one that shrinks.
    resized = image
    small = min(height, image.shape[0]), min(width, image.shape[1])
    if small != resized.shape[:2]:
        resized = cv2.resize(resized, small[::-1], interpolation=cv2.INTER_AREA)
    if (height, width) != resized.shape[:2]:
        resized = cv2.resize(resized, (width, height), interpolation=cv2.INTER_LINEAR)
    return resized.reshape(height, width, image.shape[2])
