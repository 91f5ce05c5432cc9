"""What a translation does to images: to light and dark, to single pixels, and what it leaves behind as a pattern."""

import numpy as np

from ssl_jax import types

_REC_601 = (0.299, 0.587, 0.114)
CLEAR_SKEWNESS = 0.6
"""The skewness of a set's luminance beyond which its figures stand off from their ground.

A page of which the share p is ink has |1 - 2p| / sqrt(p (1 - p)), so this is ink on less than about a third of it. Sets
of photographs of everyday scenes stay within, a single one may not.
"""
_ROUNDING = 1e-9
HIGHEST_PSNR = 100.0
"""What identical images count as in `psnr`, in decibels."""


def luminance(images: np.ndarray) -> np.ndarray:
    """How bright the pixels look: Rec. 601 (0.299, 0.587, 0.114) of 3 channels, of any other number their mean.

    Args:
        images: [n, h, w, c]; uint8, which is divided by 255, or floats, which are taken as they are.

    Returns:
        float64 [n, h, w].

    Raises:
        UsageError: for another shape, or no image.
    """
    values = _unit(images)
    if values.ndim != 4 or not values.size:
        raise types.UsageError(f"luminance of {values.shape}: it takes images [n, h, w, c], n at least 1")
    return values @ np.array(_REC_601) if values.shape[-1] == 3 else values.mean(axis=-1)


def luminance_correlation(inputs: np.ndarray, outputs: np.ndarray) -> float:
    """How far light stays light: the Pearson correlation over the pixels of an image and its output, as a mean of all.

    What all images of a side have in common, each pixel's mean over them, is taken off first: a border that is always
    dark becomes light in a translator that turns light into dark and in one that exchanges figure and ground within
    it, and only the rest tells the two apart.

    Args:
        inputs, outputs: as in `luminance`, of equally many images of one height and width; channels may differ.

    Returns:
        In [-1, 1]; -1 where every output is the negative of its input. Pairs of which one differs from the mean by one
        tone alone have no correlation and are left out; 0.0 where none is left, as of a single pair.

    Raises:
        UsageError: for numbers or sizes of images that differ.
    """
    first, second = luminance(inputs), luminance(outputs)
    if first.shape != second.shape:
        raise types.UsageError(
            f"correlation of images {first.shape} and {second.shape} (n, h, w): pixels at the same place are compared, "
            "so give as many outputs as inputs, of their size"
        )
    first, second = ((each - each.mean(axis=0)).reshape(len(each), -1) for each in (first, second))
    varied = (np.ptp(first, axis=1) > _ROUNDING) & (np.ptp(second, axis=1) > _ROUNDING)
    if not varied.any():
        return 0.0
    first, second = (each[varied] - each[varied].mean(axis=1, keepdims=True) for each in (first, second))
    norms = np.sqrt(np.sum(first**2, axis=1) * np.sum(second**2, axis=1))
    return float(np.mean(np.sum(first * second, axis=1) / norms))


def skewness(images: np.ndarray) -> float:
    """The third standardised moment of the luminance of all pixels of a set [n, h, w, c]; 0.0 where all are alike.

    Above 0 for light figures on a dark ground, below 0 for dark ones on a light ground.
    """
    values = luminance(images)
    if np.ptp(values) == 0:
        return 0.0
    centred = values - values.mean()
    return float(np.mean(centred**3) / np.mean(centred**2) ** 1.5)


def expected_polarity(real_a: np.ndarray, real_b: np.ndarray) -> int:
    """Whether light should stay light in a translation between two sets of images [n, h, w, c]: 1 yes, -1 no.

    It should, but where both sets have a clear figure and ground (a skewness beyond `CLEAR_SKEWNESS`) of opposite
    tones: white strokes on black become dark ink on paper. Of the many maps between two domains that no discriminator
    can fault the negative is then the right one, and the one that keeps tones turns figures into ground.
    """
    first, second = skewness(real_a), skewness(real_b)
    clear = min(abs(first), abs(second)) > CLEAR_SKEWNESS
    return -1 if clear and first * second < 0 else 1


def checkerboard(images: np.ndarray) -> float:
    """The share of a set's luminance contrast that repeats every two pixels, down, across or both.

    That is the spectral energy of the frequencies with f_x or f_y at Nyquist over that of all but the mean, summed over
    the images; an odd last row or column is left out. Strided transposed convolutions that overlap unevenly leave such
    a pattern (Odena et al. 2016, doi 10.23915/distill.00003).

    Args:
        images: [n, h, w, c] as in `luminance`, 2 pixels or more each way.

    Returns:
        In [0, 1]: 1 for checkerboards and stripes of one pixel; for white noise (h + w - 1) / (h w - 1) on average;
        about 0.003 for photographs of 32 pixels and 0.0002 for such of 256. 0.0 for images of one tone.

    Raises:
        UsageError: for smaller images.
    """
    values = luminance(images)
    height, width = (side // 2 * 2 for side in values.shape[1:])
    if not (height and width):
        raise types.UsageError(f"checkerboard in images of {values.shape[1:]} (h, w): it takes 2 pixels or more a side")
    values = values[:, :height, :width]
    values = values - values.mean(axis=(1, 2), keepdims=True)
    total = np.sum(values**2)
    if total <= 0:
        return 0.0
    # By Parseval, all frequencies with f_x at Nyquist together are the alternating sums of the rows.
    down, across = (np.where(np.arange(side) % 2, -1.0, 1.0) for side in (height, width))
    rows, columns = values @ across, np.einsum("nhw,h->nw", values, down)
    both = rows @ down
    energy = np.sum(rows**2) / width + np.sum(columns**2) / height - np.sum(both**2) / (height * width)
    return float(np.clip(energy / total, 0.0, 1.0))


def psnr(outputs: np.ndarray, truths: np.ndarray) -> float:
    """The peak signal-to-noise ratio 10 log10(1 / mean squared error) in decibels, the mean over images.

    Args:
        outputs, truths: [n, ...] of one shape; uint8, which is divided by 255, or floats in [0, 1].

    Returns:
        At most `HIGHEST_PSNR`, which identical images count as.

    Raises:
        UsageError: for shapes that differ, or no image.
    """
    squares = np.mean(_differences(outputs, truths) ** 2, axis=1)
    return float(np.mean(-10 * np.log10(np.maximum(squares, 10 ** (-HIGHEST_PSNR / 10)))))


def pixel_error(outputs: np.ndarray, truths: np.ndarray) -> float:
    """The mean absolute difference, with arguments and errors as of `psnr`; in [0, 1]."""
    return float(np.mean(np.abs(_differences(outputs, truths))))


def mean_distance(images: np.ndarray) -> float:
    """How far a set's images lie apart: the root mean squared difference of their values, the mean over all pairs.

    Args:
        images: [n, ...], n at least 2; uint8, which is divided by 255, or floats.

    Returns:
        At least 0; 0.0 for one image again and again.

    Raises:
        UsageError: for fewer images.
    """
    if len(images) < 2:
        raise types.UsageError(f"mean distance within {len(images)} images: it takes 2 at least")
    rows = _unit(images).reshape(len(images), -1)
    rows -= rows.mean(axis=0, keepdims=True)
    squares = np.sum(rows**2, axis=1)
    products = rows @ rows.T
    pairs = np.triu_indices(len(rows), 1)
    apart = squares[pairs[0]] + squares[pairs[1]] - 2 * products[pairs]
    return float(np.mean(np.sqrt(np.maximum(apart, 0.0) / rows.shape[1])))


def _differences(outputs, truths):
    """float64 [n, d]."""
    first, second = _unit(outputs), _unit(truths)
    if first.shape != second.shape or not first.size:
        raise types.UsageError(
            f"images of {first.shape} against truths of {second.shape}: give equally many, 1 at least, of one shape"
        )
    return (first - second).reshape(len(first), -1)


def _unit(images):
    images = np.asarray(images)
    return images.astype(np.float64) / (255 if images.dtype == np.uint8 else 1)
