"""Operations on batches of images whose every parameter is given: what `augment` draws, these carry out.

All take and return float32 [b, h, w, c] with c = 1 or 3 and values in [0, 1], and agree with torchvision's functions of
the same name on float tensors. Parameters of shape [b] hold one value an image. Resampling is written as two matrix
products with separable weights, and nothing branches, gathers or loops, so the same program is fast on CPU and GPU.
"""

import jax
import jax.numpy as jnp
import numpy as np

GRAY_WEIGHTS = (0.2989, 0.587, 0.114)
"""Rec. 601 luma as torchvision rounds it."""


def per_image(values: jax.Array) -> jax.Array:
    """[b] as [b, 1, 1, 1], to meet images."""
    return values.reshape(-1, 1, 1, 1)


def resample(images: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Weighted sums of rows, then of columns.

    Args:
        images: [b, h, w, c].
        rows: weights [b, h', h].
        columns: weights [b, w', w].

    Returns:
        [b, h', w', c].
    """
    batch, height, width, channels = images.shape
    exact = jax.lax.Precision.HIGHEST  # a GPU would otherwise round the pixels to TF32, ten bits
    taken = jnp.matmul(rows, images.reshape(batch, height, width * channels), precision=exact)
    # Channels move outside the pixels so that each product is one plain matrix product on contiguous memory, and what
    # follows works on planes; XLA folds the transpose back into the next elementwise operation.
    planes = taken.reshape(batch, -1, width, channels).transpose(0, 3, 1, 2)
    planes = jnp.matmul(planes.reshape(batch, -1, width), columns.transpose(0, 2, 1), precision=exact)
    return planes.reshape(batch, channels, rows.shape[1], columns.shape[1]).transpose(0, 2, 3, 1)


def bilinear_weights(start_px: jax.Array, length_px: jax.Array, source_px: int, target_px: int) -> jax.Array:
    """Antialiased bilinear resize of an interval, as weights.

    Pillow's BILINEAR and torchvision's `antialias=True`: a triangle of one source pixel half-width, widened by the
    ratio when shrinking, cut at the ends of the interval and renormalised.

    Args:
        start_px: first source pixel of the interval, integer [b].
        length_px: its length, integer [b], at least 1; the interval lies within the source.
        source_px: length of the source.
        target_px: length of the result.

    Returns:
        [b, target_px, source_px] with rows that sum to one.
    """
    start, length = (jnp.asarray(value, jnp.float32).reshape(-1, 1, 1) for value in (start_px, length_px))
    step = length / target_px
    targets = jnp.arange(target_px, dtype=jnp.float32).reshape(1, -1, 1)
    sources = jnp.arange(source_px, dtype=jnp.float32).reshape(1, 1, -1) - start
    distance = jnp.abs(sources + 0.5 - (targets + 0.5) * step)
    weights = jnp.maximum(0.0, 1.0 - distance / jnp.maximum(step, 1.0))
    weights = jnp.where((sources >= 0) & (sources < length), weights, 0.0)
    return weights / weights.sum(axis=-1, keepdims=True)


def crop_resize(
    images: jax.Array,
    top_px: jax.Array,
    left_px: jax.Array,
    height_px: jax.Array,
    width_px: jax.Array,
    size_px: int,
) -> jax.Array:
    """A box of each image, resized with antialiased bilinear weights (torchvision's `resized_crop`).

    Pixels outside the box do not touch the result. Enlarging is bilinear interpolation.

    Args:
        images: [b, h, w, c].
        top_px, left_px, height_px, width_px: the boxes, integers [b], within the image and not empty.
        size_px: side of the result.

    Returns:
        [b, size_px, size_px, c].
    """
    rows = bilinear_weights(top_px, height_px, images.shape[1], size_px)
    columns = bilinear_weights(left_px, width_px, images.shape[2], size_px)
    return resample(images, rows, columns)


def resize(images: jax.Array, height_px: int, width_px: int) -> jax.Array:
    """Antialiased bilinear resize of whole images to [b, height_px, width_px, c]."""
    batch, height, width, _ = images.shape
    if (height, width) == (height_px, width_px):
        return images
    rows = bilinear_weights(jnp.zeros(1), jnp.full(1, height), height, height_px)
    columns = bilinear_weights(jnp.zeros(1), jnp.full(1, width), width, width_px)
    return resample(
        images,
        jnp.broadcast_to(rows, (batch, *rows.shape[1:])),
        jnp.broadcast_to(columns, (batch, *columns.shape[1:])),
    )


def shift_crop(images: jax.Array, down_px: jax.Array, right_px: jax.Array) -> jax.Array:
    """The window of the image's own size moved down and right by integers [b]; black where it leaves the image."""

    def shifted(offset_px: jax.Array, side_px: int) -> jax.Array:
        targets = jnp.arange(side_px).reshape(1, -1, 1) + offset_px.reshape(-1, 1, 1)
        return (targets == jnp.arange(side_px).reshape(1, 1, -1)).astype(jnp.float32)

    return resample(images, shifted(down_px, images.shape[1]), shifted(right_px, images.shape[2]))


def sheared_window(
    images: jax.Array,
    scale: jax.Array,
    shift_px: jax.Array,
    shear: jax.Array,
    size_px: int,
) -> jax.Array:
    """A window of each image, scaled, shifted and sheared, resampled bilinearly; black outside the image.

    Args:
        images: [b, h, w, c].
        scale: [b, 2], height and width of the window over those of the image: below 1 enlarges the content.
        shift_px: [b, 2], where the window's centre lies from the image's, down and right, in source pixels.
        shear: [b], columns that the window moves right for each row below its centre.
        size_px: side of the result.

    Returns:
        [b, size_px, size_px, c]. Bilinear interpolation; where the content shrinks, the mean over the area that a
        pixel of the result covers.
    """
    _, height, width, _ = images.shape
    steps = jnp.arange(size_px, dtype=jnp.float32) + 0.5 - size_px / 2

    def weights(position: jax.Array, step: jax.Array, source_px: int) -> jax.Array:
        window = jnp.maximum(step, 1.0)
        sources = jnp.arange(source_px, dtype=jnp.float32).reshape(*[1] * (position.ndim - 1), -1)
        distance = jnp.abs(sources + 0.5 - position)
        return jnp.clip((window + 1.0) / 2 - distance, 0.0, 1.0) / window

    step_down = scale[:, 0].reshape(-1, 1, 1) * (height / size_px)
    step_right = scale[:, 1].reshape(-1, 1, 1, 1) * (width / size_px)
    down = steps.reshape(1, -1, 1) * step_down
    rows = weights(down + (height / 2 + shift_px[:, 0].reshape(-1, 1, 1)), step_down, height)
    right = steps.reshape(1, 1, -1, 1) * step_right + shear.reshape(-1, 1, 1, 1) * down[..., None]
    columns = weights(right + (width / 2 + shift_px[:, 1].reshape(-1, 1, 1, 1)), step_right, width)
    taken = jnp.einsum("bsh,bhwc->bswc", rows, images, precision=jax.lax.Precision.HIGHEST)
    return jnp.einsum("bstw,bswc->bstc", columns, taken, precision=jax.lax.Precision.HIGHEST)


def flip(images: jax.Array) -> jax.Array:
    """Left and right exchanged."""
    return images[:, :, ::-1]


def _planes(images: jax.Array) -> jax.Array:
    """[b, h, w, c] as [b, c, h * w], where colour is one small matrix product."""
    batch, height, width, channels = images.shape
    return images.transpose(0, 3, 1, 2).reshape(batch, channels, height * width)


def _images(planes: jax.Array, like: jax.Array) -> jax.Array:
    batch, height, width, channels = like.shape
    return planes.reshape(batch, channels, height, width).transpose(0, 2, 3, 1)


def _luma(channels: int) -> jax.Array:
    return jnp.asarray(GRAY_WEIGHTS if channels == 3 else (1.0,), jnp.float32)


def _blend(planes: jax.Array, factor: jax.Array, to_gray: jax.Array | bool, to_mean: jax.Array | bool) -> jax.Array:
    """factor * planes + (1 - factor) * anchor, clipped; the anchor is the pixel's gray, the image's mean gray or black.

    The colour part is written as a 3x3 matrix an image. A matrix product is where XLA:CPU must stop fusing: left as
    elementwise arithmetic, a chain of blends is recomputed for each of its readers, many times over.
    """
    luma = _luma(planes.shape[1])
    factor = factor.reshape(-1, 1, 1)
    rest = 1.0 - factor
    gray = jnp.broadcast_to(luma.reshape(1, 1, -1), (1, luma.size, luma.size))
    matrix = factor * jnp.eye(luma.size, dtype=jnp.float32)[None] + jnp.where(to_gray, rest, 0.0) * gray
    mean = (planes.mean(axis=2, keepdims=True) * luma.reshape(1, -1, 1)).sum(axis=1, keepdims=True)
    mixed = jnp.matmul(matrix, planes, precision=jax.lax.Precision.HIGHEST)
    return jnp.clip(mixed + jnp.where(to_mean, rest * mean, 0.0), 0.0, 1.0)


def adjust_brightness(images: jax.Array, factor: jax.Array) -> jax.Array:
    """Away from black (factor [b] above 1) or towards it, clipped to [0, 1]."""
    return _images(_blend(_planes(images), factor, to_gray=False, to_mean=False), images)


def adjust_contrast(images: jax.Array, factor: jax.Array) -> jax.Array:
    """Away from the image's mean gray (factor [b] above 1) or towards it, clipped to [0, 1]."""
    return _images(_blend(_planes(images), factor, to_gray=False, to_mean=True), images)


def adjust_saturation(images: jax.Array, factor: jax.Array) -> jax.Array:
    """Away from each pixel's gray (factor [b] above 1) or towards it, which 0 reaches; one channel is unchanged."""
    if images.shape[-1] == 1:
        return images
    return _images(_blend(_planes(images), factor, to_gray=True, to_mean=False), images)


def _turn_hue(planes: jax.Array, shift: jax.Array) -> jax.Array:
    red, green, blue = jnp.split(planes, 3, axis=1)
    shift = shift.reshape(-1, 1, 1)
    value = jnp.maximum(jnp.maximum(red, green), blue)
    chroma = value - jnp.minimum(jnp.minimum(red, green), blue)
    not_red = jnp.where(value == green, blue - red + 2.0 * chroma, red - green + 4.0 * chroma)
    sextant = jnp.where(value == red, green - blue, not_red) / jnp.where(chroma == 0.0, 1.0, chroma) + 6.0 * shift
    place = sextant + jnp.asarray((5.0, 3.0, 1.0), jnp.float32).reshape(1, 3, 1)
    place = place - 6.0 * jnp.floor(place / 6.0)
    turned = value - chroma * jnp.clip(jnp.minimum(place, 4.0 - place), 0.0, 1.0)
    return jnp.where(shift == 0.0, planes, turned)


def adjust_hue(images: jax.Array, shift: jax.Array) -> jax.Array:
    """Hue turned by `shift` [b] whole circles in HSV, [-0.5, 0.5]; one channel is unchanged."""
    return images if images.shape[-1] == 1 else _images(_turn_hue(_planes(images), shift), images)


def jitter(
    images: jax.Array,
    brightness: jax.Array,
    contrast: jax.Array,
    saturation: jax.Array,
    hue: jax.Array,
    rank: jax.Array,
) -> jax.Array:
    """The four colour adjustments, in an order of each image's own.

    Brightness, contrast and saturation are one blend with three anchors, so three blends before the hue and three
    after it, those out of turn with factor 1, carry out all 24 orders at the price of seven adjustments.

    Args:
        images: [b, h, w, c].
        brightness, contrast, saturation: factors [b], not negative; 1 changes nothing, to the last bit.
        hue: shifts [b], in [-0.5, 0.5]; 0 changes nothing, to the last bit.
        rank: [b, 4], when brightness, contrast, saturation and hue take their turn: a permutation of 0, 1, 2, 3.

    Returns:
        [b, h, w, c]. One channel ignores saturation and hue.
    """
    colour = images.shape[-1] == 3
    blends = 3 if colour else 2
    factors = jnp.stack([brightness, contrast, saturation][:blends], axis=1)
    turn = rank[:, :blends]
    place = (turn[:, None, :] < turn[:, :, None]).sum(axis=2)
    early = turn < rank[:, 3:] if colour else jnp.ones_like(turn, bool)

    def blend(planes: jax.Array, position: int, active: jax.Array) -> jax.Array:
        chosen = (place == position) & active
        factor = jnp.where(chosen, factors - 1.0, 0.0).sum(axis=1) + 1.0
        to_mean, to_gray = (chosen[:, which : which + 1, None] if which < blends else False for which in (1, 2))
        return _blend(planes, factor, to_gray=to_gray, to_mean=to_mean)

    planes = _planes(images)
    for position in range(blends):
        planes = blend(planes, position, early)
    if colour:
        planes = _turn_hue(planes, hue)
        for position in range(blends):
            planes = blend(planes, position, ~early)
    return _images(planes, images)


def gaussian_blur(images: jax.Array, sigma_px: jax.Array, kernel_px: int) -> jax.Array:
    """A normalised Gaussian cut to a window, over reflected borders (torchvision's `gaussian_blur`).

    Args:
        images: [b, h, w, c], of at least `kernel_px // 2 + 1` pixels a side.
        sigma_px: standard deviations [b], at least 0; 0 changes nothing, to the last bit.
        kernel_px: side of the window, odd.

    Returns:
        [b, h, w, c].
    """
    reach = kernel_px // 2
    # At a hundredth of a pixel the neighbours' weights underflow to zero and the matrix is the identity.
    sigma = jnp.maximum(sigma_px, 0.01).reshape(-1, 1)
    kernel = jnp.exp(-0.5 * (jnp.arange(-reach, reach + 1, dtype=jnp.float32).reshape(1, -1) / sigma) ** 2)
    kernel = kernel / kernel.sum(axis=1, keepdims=True)

    def weights(side_px: int) -> jax.Array:
        source = np.pad(np.arange(side_px), reach, mode="reflect")
        reads = np.zeros((kernel_px, side_px, side_px), np.float32)
        for tap in range(kernel_px):
            reads[tap, np.arange(side_px), source[tap : tap + side_px]] = 1.0
        return jnp.tensordot(kernel, reads, axes=1, precision=jax.lax.Precision.HIGHEST)

    return resample(images, weights(images.shape[1]), weights(images.shape[2]))


def solarize(images: jax.Array, threshold: float) -> jax.Array:
    """Values at or above the threshold inverted."""
    return jnp.where(images >= threshold, 1.0 - images, images)
