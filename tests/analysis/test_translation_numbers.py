"""Numbers about translated images, against closed forms and numpy's Fourier transform."""

import numpy as np
import pytest
from scipy import stats
from scipy.spatial import distance

from ssl_jax import types
from ssl_jax.analysis import translation


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def strokes(ink, ground, count=6, share=0.1):
    """Figures of one tone on a ground of another, `share` of the pixels."""
    drawn = np.random.default_rng(1).random((count, 20, 20, 1)) < share
    return np.where(drawn, ink, ground).astype(np.uint8)


def smooth(count=4, height=32, width=30):
    down, across = np.mgrid[:height, :width]
    turns = np.arange(1, count + 1).reshape(-1, 1, 1)
    waves = np.sin(2 * np.pi * down / height * turns / 2) + np.cos(2 * np.pi * across / width)
    return (0.5 + 0.2 * waves)[..., None]


BOARD = (np.indices((8, 8)).sum(axis=0) % 2)[None, :, :, None].astype(float)


def test_luminance_is_that_of_rec_601():
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]], np.uint8).reshape(1, 2, 2, 3)
    found = translation.luminance(colours)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found.ravel(), [0.299, 0.587, 0.114, 1])
    np.testing.assert_allclose(translation.luminance(colours / 255), found)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_of_other_channels_luminance_is_the_mean(channels):
    images = noise(2, 3, 4, channels)
    np.testing.assert_allclose(translation.luminance(images), images.mean(axis=-1) / 255)


def test_correlation_is_the_mean_of_each_image_own_beyond_what_all_have_in_common():
    inputs, outputs = noise(5, 6, 7, 3), noise(5, 6, 7, 1, seed=1)
    first, second = (each - each.mean(axis=0) for each in map(translation.luminance, (inputs, outputs)))
    expected = np.mean([stats.pearsonr(a.ravel(), b.ravel())[0] for a, b in zip(first, second, strict=True)])
    assert translation.luminance_correlation(inputs, outputs) == pytest.approx(expected)


def test_correlation_of_copies_and_negatives():
    images = noise(50, 6, 7, 3)
    assert translation.luminance_correlation(images, images // 2 + 40) == pytest.approx(1, abs=1e-3)
    assert translation.luminance_correlation(images, 255 - images) == pytest.approx(-1)
    half = np.where(np.arange(50).reshape(-1, 1, 1, 1) < 20, images, 255 - images)
    assert translation.luminance_correlation(images, half) == pytest.approx(-0.2, abs=0.05)


def test_figure_and_ground_exchanged_within_a_border_are_told_from_a_negative():
    """Dark border and light strokes become light border; inside, the strokes are right in one and exchanged in one."""
    inside = np.random.default_rng(0).random((30, 6, 6, 1)) < 0.3
    strokes, exchanged = (np.pad(each, ((0, 0), (2, 2), (2, 2), (0, 0))) for each in (inside, ~inside))
    images, negative, wrong = (np.uint8(255) * each for each in (strokes, ~strokes, ~exchanged))
    assert translation.luminance_correlation(images, negative) == pytest.approx(-1)
    assert translation.luminance_correlation(images, wrong) > 0.9
    assert np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(images, wrong, strict=True)]) < 0.3


def test_images_of_one_tone_have_no_correlation():
    images = noise(40, 5, 5, 1)
    assert translation.luminance_correlation(images, np.full_like(images, 3)) == 0.0
    tones = np.broadcast_to(np.arange(40, dtype=np.uint8).reshape(-1, 1, 1, 1), images.shape)
    assert translation.luminance_correlation(images, tones) == 0.0
    assert translation.luminance_correlation(images[:1], images[:1]) == 0.0


def test_skewness_is_of_all_pixels_of_the_set():
    images = noise(3, 5, 5, 3) // np.array([1, 2, 9], np.uint8).reshape(3, 1, 1, 1)
    assert translation.skewness(images) == pytest.approx(stats.skew(translation.luminance(images).ravel()))
    assert translation.skewness(strokes(255, 0)) > 1 > -1 > translation.skewness(strokes(20, 230))
    assert translation.skewness(np.full((2, 3, 3, 1), 9, np.uint8)) == 0.0


def test_the_skewness_of_ink_is_that_of_its_share():
    page = np.zeros((1, 10, 10, 1))
    page.reshape(-1)[:36] = 1
    assert translation.skewness(page) == pytest.approx((1 - 2 * 0.36) / np.sqrt(0.36 * 0.64))
    # The documented third: just below it figures are clear.
    assert translation.skewness(page) < translation.CLEAR_SKEWNESS
    page.reshape(-1)[35] = 0
    assert translation.skewness(page) > translation.CLEAR_SKEWNESS


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (strokes(255, 0), strokes(20, 230), -1),
        (strokes(20, 230), strokes(255, 0), -1),
        (strokes(255, 0), strokes(200, 10), 1),
        (strokes(20, 230), strokes(0, 200), 1),
        (strokes(20, 230), noise(6, 20, 20, 3), 1),
        (noise(6, 20, 20, 3), strokes(255, 0), 1),
        (strokes(255, 0, share=0.45), strokes(0, 255, share=0.1), 1),
    ],
)
def test_light_stays_light_but_between_opposite_figures(a, b, expected):
    assert translation.expected_polarity(a, b) == expected


def by_fourier(images):
    values = translation.luminance(images)
    height, width = (side // 2 * 2 for side in values.shape[1:])
    energy = np.abs(np.fft.fft2(values[:, :height, :width])) ** 2
    energy[:, 0, 0] = 0
    at_nyquist = np.zeros((height, width), bool)
    at_nyquist[height // 2] = at_nyquist[:, width // 2] = True
    return energy[:, at_nyquist].sum() / energy.sum()


@pytest.mark.parametrize("shape", [(3, 8, 10, 1), (2, 9, 6, 3), (2, 7, 7, 1), (1, 2, 2, 1)])
def test_checkerboard_is_the_energy_at_nyquist(shape):
    images = noise(*shape)
    assert translation.checkerboard(images) == pytest.approx(by_fourier(images))


def test_checkerboards_and_stripes_are_nothing_else_and_smooth_pictures_have_none():
    for pattern in (BOARD, np.indices((6, 6))[:1, ..., None] % 2, np.indices((6, 6))[1:, ..., None] % 2):
        assert translation.checkerboard(pattern.astype(float)) == pytest.approx(1)
    assert translation.checkerboard(smooth()) < 1e-3
    assert translation.checkerboard(np.full((2, 4, 4, 1), 0.3)) == 0.0
    # A pattern of another period.
    assert translation.checkerboard(np.indices((8, 8))[:1, ..., None] // 2 % 2 * 1.0) == pytest.approx(0, abs=1e-12)


def test_checkerboard_of_white_noise():
    images = np.random.default_rng(0).normal(size=(400, 12, 10, 1))
    assert translation.checkerboard(images) == pytest.approx((12 + 10 - 1) / (12 * 10 - 1), rel=0.03)


def test_a_weak_checkerboard_counts_by_its_energy():
    images = smooth(height=32, width=32)
    board = np.indices((32, 32)).sum(axis=0)[None, :, :, None] % 2 - 0.5
    variance = images.var(axis=(1, 2)).mean()
    found = translation.checkerboard(images + 0.04 * board) - translation.checkerboard(images)
    assert found == pytest.approx(0.02**2 / (variance + 0.02**2), rel=0.01)


def test_psnr_and_error_are_means_over_images_and_pixels():
    truths = noise(3, 4, 5, 3) // 2
    offsets = np.array([1, 10, 100], np.uint8)
    outputs = truths + offsets.reshape(3, 1, 1, 1)
    assert translation.psnr(outputs, truths) == pytest.approx(np.mean(20 * np.log10(255 / offsets)))
    assert translation.pixel_error(outputs, truths) == pytest.approx(37 / 255)
    assert translation.psnr(outputs / 255, truths / 255) == pytest.approx(translation.psnr(outputs, truths))
    assert translation.pixel_error(truths, outputs) == translation.pixel_error(outputs, truths)


def test_identical_images_have_the_highest_psnr():
    images = noise(2, 4, 4, 1)
    assert translation.psnr(images, images) == translation.HIGHEST_PSNR == 100
    other = images.copy()
    other[1] ^= 255
    assert translation.psnr(images, other) == pytest.approx((100 + translation.psnr(images[1:], other[1:])) / 2)


def test_mean_distance_is_over_all_pairs_and_in_units_of_a_pixel():
    images = noise(7, 4, 5, 3)
    expected = distance.pdist(images.reshape(7, -1) / 255).mean() / np.sqrt(60)
    assert translation.mean_distance(images) == pytest.approx(expected)
    assert translation.mean_distance(np.stack([np.zeros((3, 3, 1)), np.full((3, 3, 1), 0.25)])) == pytest.approx(0.25)
    assert translation.mean_distance(images[[0, 0, 0]]) == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: translation.luminance(noise(4, 4, 3)), r"luminance of \(4, 4, 3\): it takes images"),
        (lambda: translation.luminance(noise(0, 4, 4, 3)), "n at least 1"),
        (lambda: translation.luminance_correlation(noise(2, 4, 4, 1), noise(2, 4, 5, 1)), "of their size"),
        (lambda: translation.luminance_correlation(noise(2, 4, 4, 1), noise(1, 4, 4, 1)), "as many outputs as inputs"),
        (lambda: translation.checkerboard(noise(2, 1, 4, 1)), r"images of \(1, 4\).* 2 pixels or more"),
        (lambda: translation.psnr(noise(2, 4, 4, 1), noise(2, 4, 4, 3)), r"\(2, 4, 4, 1\) against truths of"),
        (lambda: translation.mean_distance(noise(1, 4, 4, 1)), "within 1 images: it takes 2"),
        (lambda: translation.pixel_error(noise(0, 4, 4, 1), noise(0, 4, 4, 1)), "1 at least"),
    ],
)
def test_what_has_no_answer_is_refused(call, words):
    with pytest.raises(types.UsageError, match=words):
        call()
