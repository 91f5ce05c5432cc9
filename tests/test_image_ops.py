"""Every operation against something that shares no code with it: Pillow, SciPy, the standard library, a plain loop."""

import colorsys
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from ssl_jax import image_ops

LEVEL = 1 / 255


def bytes_like(batch, height, width, channels, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (batch, height, width, channels), dtype=np.uint8)


def compiled(name, *static):
    return jax.jit(getattr(image_ops, name), static_argnums=static)


def unit(images):
    return jnp.asarray(images, jnp.float32) / 255


def pillow(image):
    module = pytest.importorskip("PIL.Image", reason="compares with Pillow, which is not installed")
    return module.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def array(picture):
    values = np.asarray(picture, np.float32) / 255
    return values[..., None] if values.ndim == 2 else values


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size_px", [5, 24, 50])
def test_crop_resize_is_pillows(channels, size_px):
    images = bytes_like(6, 24, 31, channels)
    boxes = np.array([(0, 0, 24, 31), (3, 5, 7, 4), (23, 30, 1, 1), (2, 0, 11, 29), (0, 9, 24, 2), (5, 6, 16, 16)])
    found = compiled("crop_resize", 5)(unit(images), *jnp.asarray(boxes).T, size_px)
    assert found.shape == (6, size_px, size_px, channels)
    assert found.dtype == jnp.float32
    for image, (top, left, height, width), answer in zip(images, boxes.tolist(), found, strict=True):
        cropped = pillow(image).crop((left, top, left + width, top + height))
        # Pillow rounds to bytes after each of its two passes.
        np.testing.assert_allclose(answer, array(cropped.resize((size_px, size_px), 2)), atol=1.01 * LEVEL)


def test_crop_resize_reads_the_box_alone():
    images = unit(bytes_like(1, 20, 20, 3))
    outside = jnp.ones((20, 20, 1), bool).at[4:13, 6:17].set(False)
    box = [jnp.array([value]) for value in (4, 6, 9, 11)]
    spoilt = jnp.where(outside[None], 7.0, images)
    np.testing.assert_array_equal(
        compiled("crop_resize", 5)(images, *box, 6), compiled("crop_resize", 5)(spoilt, *box, 6)
    )


def test_a_box_of_the_wanted_size_is_copied_exactly():
    images = unit(bytes_like(2, 9, 12, 3))
    found = compiled("crop_resize", 5)(images, jnp.array([0, 2]), jnp.array([5, 1]), *(jnp.array([7, 7]),) * 2, 7)
    np.testing.assert_array_equal(found[0], images[0, :7, 5:])
    np.testing.assert_array_equal(found[1], images[1, 2:, 1:8])


@pytest.mark.parametrize("size", [(7, 40), (40, 7), (13, 13)])
def test_resize_is_pillows(size):
    images = bytes_like(2, 13, 22, 3)
    found = compiled("resize", 1, 2)(unit(images), *size)
    for image, answer in zip(images, found, strict=True):
        np.testing.assert_allclose(answer, array(pillow(image).resize(size[::-1], 2)), atol=1.01 * LEVEL)


def test_shift_crop_is_a_slice_of_the_padded_image():
    images = unit(bytes_like(9, 6, 8, 3))
    offsets = list(itertools.product((-4, 0, 3), (-2, 0, 4)))
    down, right = jnp.asarray(offsets).T
    found = compiled("shift_crop")(images, down, right)
    padded = np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)))
    for index, (first, second) in enumerate(offsets):
        expected = padded[index, 4 + first : 10 + first, 4 + second : 12 + second]
        np.testing.assert_array_equal(found[index], expected)


def sampled(image, row, column):
    """The image at a point, by the four pixels around it; black outside."""
    top, left = int(np.floor(row)), int(np.floor(column))
    total = 0.0
    for y, x in itertools.product((top, top + 1), (left, left + 1)):
        if 0 <= y < image.shape[0] and 0 <= x < image.shape[1]:
            total = total + (1 - abs(row - y)) * (1 - abs(column - x)) * image[y, x]
    return total


@pytest.mark.parametrize("channels", [1, 3])
def test_sheared_window_samples_the_image_at_the_stated_places(channels):
    images = np.asarray(unit(bytes_like(3, 8, 10, channels)))
    scale = np.array([(1.0, 1.0), (0.7, 1.1), (1.2, 0.6)])
    shift = np.array([(0.0, 0.0), (1.2, -0.7), (-0.4, 2.0)])
    shear = np.array([0.0, 0.5, -0.3])
    found = compiled("sheared_window", 4)(images, *(jnp.asarray(v, jnp.float32) for v in (scale, shift, shear)), 12)
    for index, i, j in itertools.product(range(3), range(12), range(12)):
        down = (i - 5.5) * scale[index, 0] * 8 / 12
        right = (j - 5.5) * scale[index, 1] * 10 / 12 + shear[index] * down
        expected = sampled(images[index], 3.5 + shift[index, 0] + down, 4.5 + shift[index, 1] + right)
        np.testing.assert_allclose(found[index, i, j], expected, atol=1e-5)


def test_sheared_window_that_changes_nothing_gives_the_image_and_one_that_shrinks_averages():
    images = unit(bytes_like(2, 8, 8, 1))
    still = jnp.ones((2, 2)), jnp.zeros((2, 2)), jnp.zeros(2)
    np.testing.assert_allclose(compiled("sheared_window", 4)(images, *still, 8), images, atol=1e-6)
    flat = compiled("sheared_window", 4)(jnp.ones((2, 32, 32, 1)), *still, 8)
    np.testing.assert_allclose(flat[:, 1:-1, 1:-1], 1.0, atol=1e-6)
    large = unit(bytes_like(2, 32, 32, 1))
    found = compiled("sheared_window", 4)(large, *still, 8)
    np.testing.assert_allclose(found, large.reshape(2, 8, 4, 8, 4, 1).mean(axis=(2, 4)), atol=1e-6)
    third = jnp.full((2, 2), 0.9), jnp.zeros((2, 2)), jnp.zeros(2)
    flat = compiled("sheared_window", 4)(jnp.ones((2, 32, 32, 1)), *third, 17)
    np.testing.assert_allclose(flat, 1.0, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("name", "enhancer", "levels"),
    [
        ("adjust_brightness", "Brightness", 1.01),
        ("adjust_contrast", "Contrast", 1.5),
        ("adjust_saturation", "Color", 1.3),
    ],
)
def test_blends_are_pillows(channels, name, enhancer, levels):
    enhance = pytest.importorskip("PIL.ImageEnhance", reason="compares with Pillow, which is not installed")
    images, factors = bytes_like(4, 10, 11, channels), (0.0, 0.6, 1.0, 1.4)
    found = compiled(name)(unit(images), jnp.asarray(factors))
    for image, factor, answer in zip(images, factors, found, strict=True):
        expected = array(getattr(enhance, enhancer)(pillow(image)).enhance(factor))
        # Pillow rounds the gray of each pixel and the mean gray to bytes, and cuts instead of rounding at the end.
        np.testing.assert_allclose(answer, expected, atol=levels * LEVEL)


def test_hue_is_the_standard_librarys():
    levels = (0.0, 1 / 255, 0.3, 0.5, 254 / 255, 1.0)
    pixels = list(itertools.product(levels, repeat=3))
    for shift in (-0.5, -0.13, 0.0, 0.2, 1 / 3, 0.5):
        image = jnp.asarray(pixels, jnp.float32).reshape(1, 12, 18, 3)
        found = compiled("adjust_hue")(image, jnp.array([shift])).reshape(-1, 3)
        hsv = [colorsys.rgb_to_hsv(*pixel) for pixel in pixels]
        expected = [colorsys.hsv_to_rgb((h + shift) % 1.0, s, v) for h, s, v in hsv]
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_jitter_is_the_adjustments_in_the_order_given(channels):
    orders = np.array(list(itertools.permutations(range(4))))
    images = unit(bytes_like(24, 9, 7, channels))
    generator = np.random.default_rng(1)
    parameters = [jnp.asarray(generator.uniform(0.4, 1.6, 24), jnp.float32) for _ in range(3)]
    parameters.append(jnp.asarray(generator.uniform(-0.3, 0.3, 24), jnp.float32))
    found = compiled("jitter")(images, *parameters, jnp.asarray(np.argsort(orders, axis=1)))
    names = ("adjust_brightness", "adjust_contrast", "adjust_saturation", "adjust_hue")
    adjust = [compiled(name) for name in names]
    for index, order in enumerate(orders):
        expected = images[index : index + 1]
        for which in order:
            expected = adjust[which](expected, parameters[which][index : index + 1])
        np.testing.assert_allclose(found[index], expected[0], atol=1e-4)
        backwards = images[index : index + 1]
        for which in order[::-1]:
            backwards = adjust[which](backwards, parameters[which][index : index + 1])
        assert channels == 1 or np.abs(found[index] - backwards[0]).max() > 1e-3


@pytest.mark.parametrize("radius_px", [1, 4, 6])
def test_blur_is_scipys(radius_px):
    images = np.asarray(unit(bytes_like(3, 8, 15, 3)))
    sigmas = (0.1, 0.8, 2.0)
    found = compiled("gaussian_blur", 2)(jnp.asarray(images), jnp.asarray(sigmas), 2 * radius_px + 1)
    for image, sigma, answer in zip(images, sigmas, found, strict=True):
        expected = scipy.ndimage.gaussian_filter(
            image, (sigma, sigma, 0), mode="mirror", radius=(radius_px,) * 2 + (0,)
        )
        np.testing.assert_allclose(answer, expected, atol=1e-5)


def test_blur_is_near_the_three_box_filters_of_the_reference_away_from_the_border():
    filters = pytest.importorskip("PIL.ImageFilter", reason="compares with Pillow, which is not installed")
    smooth = scipy.ndimage.gaussian_filter(np.random.default_rng(0).uniform(0, 255, (48, 48, 3)), (1.5, 1.5, 0))
    image = ((smooth - smooth.min()) / np.ptp(smooth) * 255).astype(np.uint8)
    for sigma in (0.5, 1.0, 2.0):
        found = compiled("gaussian_blur", 2)(unit(image[None]), jnp.array([sigma]), 13)[0]
        expected = array(pillow(image).filter(filters.GaussianBlur(sigma)))
        np.testing.assert_allclose(found[8:-8, 8:-8], expected[8:-8, 8:-8], atol=3.5 * LEVEL)


def test_solarize_is_pillows():
    operations = pytest.importorskip("PIL.ImageOps", reason="compares with Pillow, which is not installed")
    image = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    found = image_ops.solarize(unit(image), 0.5)[0]
    np.testing.assert_allclose(found, array(operations.solarize(pillow(image[0]), 128)), atol=1e-6)


def test_flip_reverses_columns():
    images = bytes_like(2, 3, 4, 3)
    np.testing.assert_array_equal(image_ops.flip(unit(images)), unit(images[:, :, ::-1]))


@pytest.mark.parametrize("channels", [1, 3])
def test_neutral_parameters_change_no_bit(channels):
    images = unit(bytes_like(5, 8, 8, channels))
    one, zero = jnp.ones(5), jnp.zeros(5)
    rank = jnp.broadcast_to(jnp.arange(4), (5, 4))
    np.testing.assert_array_equal(compiled("jitter")(images, one, one, one, zero, rank), images)
    np.testing.assert_array_equal(compiled("gaussian_blur", 2)(images, zero, 5), images)


def test_one_channel_has_neither_saturation_nor_hue():
    images = unit(bytes_like(2, 4, 4, 1))
    np.testing.assert_array_equal(image_ops.adjust_saturation(images, jnp.zeros(2)), images)
    np.testing.assert_array_equal(image_ops.adjust_hue(images, jnp.full(2, 0.3)), images)


def test_all_stays_float32_where_float64_is_enabled():
    with jax.enable_x64(True):
        images = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)
        whole = jax.ShapeDtypeStruct((2,), jnp.int32)
        real = jax.ShapeDtypeStruct((2,), jnp.float32)
        pair = jax.ShapeDtypeStruct((2, 2), jnp.float32)
        rank = jax.ShapeDtypeStruct((2, 4), jnp.int32)
        cases = (
            (lambda *arguments: image_ops.crop_resize(*arguments, 4), images, whole, whole, whole, whole),
            (lambda images: image_ops.resize(images, 5, 6), images),
            (image_ops.shift_crop, images, whole, whole),
            (lambda *arguments: image_ops.sheared_window(*arguments, 6), images, pair, pair, real),
            (image_ops.jitter, images, real, real, real, real, rank),
            (lambda *arguments: image_ops.gaussian_blur(*arguments, 3), images, real),
            (lambda images: image_ops.solarize(images, 0.5), images),
        )
        for function, *arguments in cases:
            assert jax.eval_shape(function, *arguments).dtype == jnp.float32
