"""The colour, blur and resampling arithmetic, and the law of the crop, against torchvision's transforms."""

import itertools
import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import augment, image_ops


@pytest.fixture(scope="module")
def torchvision():
    """torchvision's transforms, also beside a PyTorch for which its compiled operators were not built."""
    torch = pytest.importorskip("torch", reason="needs the parity extra: make test PARITY=1")
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    register = torch.library.register_fake

    def register_others(name, *arguments, **options):
        if isinstance(name, str) and name.startswith("torchvision::"):
            return lambda function: function
        return register(name, *arguments, **options)

    torch.library.register_fake = register_others
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = pytest.importorskip("torchvision", reason="needs the parity extra: make test PARITY=1")
    finally:
        torch.library.register_fake = register
    yield module
    del library


@pytest.fixture
def functional(torchvision):
    """Each function of torchvision on one [h, w, c] array, answering in the same form."""
    import torch
    from torchvision.transforms import functional as module

    def call(name, image, *arguments, **options):
        tensor = torch.from_numpy(np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1)))
        return getattr(module, name)(tensor, *arguments, **options).numpy().transpose(1, 2, 0)

    return call


def photographs(batch, height, width, channels, seed=0):
    """Smooth pictures with saturated patches, grays and blacks, [b, h, w, c] in [0, 1]."""
    generator = np.random.default_rng(seed)
    images = generator.uniform(-0.3, 1.3, (batch, height, width, channels)).clip(0, 1)
    images[0, : height // 2] = images[0, : height // 2, :, :1]
    images[-1, :, : width // 3] = 0.0
    return images.astype(np.float32)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size_px", [8, 24, 40])
def test_crop_resize(functional, channels, size_px):
    images = photographs(6, 24, 31, channels)
    boxes = np.array([(0, 0, 24, 31), (3, 5, 7, 4), (23, 30, 1, 1), (2, 0, 11, 29), (0, 9, 24, 2), (5, 6, 16, 16)])
    found = jax.jit(image_ops.crop_resize, static_argnums=5)(jnp.asarray(images), *jnp.asarray(boxes).T, size_px)
    for image, box, answer in zip(images, boxes.tolist(), found, strict=True):
        expected = functional("resized_crop", image, *box, [size_px, size_px], antialias=True)
        np.testing.assert_allclose(answer, expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(24, 31), (31, 24), (24, 24)])
@pytest.mark.parametrize(("resize_px", "size_px"), [(16, 13), (29, 24), (24, 24)])
def test_plain(functional, shape, resize_px, size_px):
    images = (photographs(2, *shape, 3) * 255).astype(np.uint8)
    found = augment.Plain(size_px, resize_px, mean=(0.0,), deviation=(1.0,))
    found = jax.jit(found)(jnp.asarray(images))
    for image, answer in zip(images, found, strict=True):
        resized = functional("resize", (image / 255).astype(np.float32), resize_px, antialias=True)
        np.testing.assert_allclose(answer, functional("center_crop", resized, size_px), atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("adjust_brightness", (0.0, 0.6, 1.0, 1.4)),
        ("adjust_contrast", (0.0, 0.6, 1.0, 1.4)),
        ("adjust_saturation", (0.0, 0.6, 1.0, 1.4)),
        ("adjust_hue", (-0.5, -0.1, 0.07, 0.5)),
    ],
)
def test_colour(functional, channels, name, parameters):
    images = photographs(4, 12, 9, channels)
    found = jax.jit(getattr(image_ops, name))(jnp.asarray(images), jnp.asarray(parameters))
    for image, parameter, answer in zip(images, parameters, found, strict=True):
        np.testing.assert_allclose(answer, functional(name, image, parameter), atol=1e-5)


def test_hue_of_every_eight_bit_corner(functional):
    levels = np.array([0, 1, 127, 128, 254, 255], np.float32) / 255
    image = np.array(list(itertools.product(levels, repeat=3)), np.float32).reshape(1, 12, 18, 3)
    for shift in (-0.41, 0.1, 1 / 6):
        found = jax.jit(image_ops.adjust_hue)(jnp.asarray(image), jnp.array([shift]))
        np.testing.assert_allclose(found[0], functional("adjust_hue", image[0], shift), atol=1e-5)


def test_jitter_in_all_orders(functional):
    orders = list(itertools.permutations(range(4)))
    images = photographs(24, 10, 10, 3)
    generator = np.random.default_rng(1)
    factors = generator.uniform(0.6, 1.4, (24, 3)).astype(np.float32)
    hues = generator.uniform(-0.1, 0.1, 24).astype(np.float32)
    rank = np.argsort(np.array(orders), axis=1)
    found = jax.jit(image_ops.jitter)(
        jnp.asarray(images), *jnp.asarray(factors).T, jnp.asarray(hues), jnp.asarray(rank)
    )
    names = ("adjust_brightness", "adjust_contrast", "adjust_saturation", "adjust_hue")
    for index, order in enumerate(orders):
        parameters = [*factors[index].tolist(), float(hues[index])]
        expected = images[index]
        for which in order:
            expected = functional(names[which], expected, parameters[which])
        np.testing.assert_allclose(found[index], expected, atol=1e-4)


@pytest.mark.parametrize("kernel_px", [3, 13])
def test_blur(functional, kernel_px):
    images, sigmas = photographs(3, 9, 17, 3), (0.1, 0.9, 2.0)
    found = jax.jit(image_ops.gaussian_blur, static_argnums=2)(jnp.asarray(images), jnp.asarray(sigmas), kernel_px)
    for image, sigma, answer in zip(images, sigmas, found, strict=True):
        expected = functional("gaussian_blur", image, [kernel_px, kernel_px], [sigma, sigma])
        np.testing.assert_allclose(answer, expected, atol=1e-5)


def test_solarize_grayscale_and_flip(functional):
    images = photographs(2, 8, 9, 3)
    given = jnp.asarray(images)
    for image, solarized, gray, flipped in zip(
        images,
        image_ops.solarize(given, 0.5),
        augment.Grayscale(probability=1.0)(given, jax.random.key(0)),
        image_ops.flip(given),
        strict=True,
    ):
        np.testing.assert_allclose(solarized, functional("solarize", image, 0.5), atol=1e-6)
        np.testing.assert_allclose(gray, functional("rgb_to_grayscale", image, 3), atol=1e-6)
        np.testing.assert_array_equal(flipped, functional("hflip", image))


@pytest.mark.parametrize(
    ("height", "width", "scale", "ratio"),
    [(32, 32, (0.2, 1.0), (3 / 4, 4 / 3)), (40, 60, (0.08, 1.0), (3 / 4, 4 / 3)), (20, 90, (0.6, 1.0), (0.9, 1.2))],
)
def test_law_of_the_crop(torchvision, height, width, scale, ratio):
    import torch
    from torchvision.transforms import RandomResizedCrop

    draws = 6000
    crop = augment.Crop(8, scale=scale, ratio=ratio)
    found = np.asarray(jax.jit(crop.boxes, static_argnums=(1, 2, 3))(jax.random.key(3), draws, height, width))
    torch.manual_seed(0)
    blank = torch.zeros(3, height, width)
    expected = np.array([RandomResizedCrop.get_params(blank, list(scale), list(ratio)) for _ in range(draws)])

    def measures(boxes):
        top, left, tall, wide = boxes.T.astype(float)
        return {
            "area": tall * wide / (height * width),
            "shape": np.log(wide / tall),
            "top": top,
            "left": left,
            "centred": (((height - tall) // 2 == top) & ((width - wide) // 2 == left)).astype(float),
        }

    other = measures(expected)
    for name, values in measures(found).items():
        # Five standard errors of the difference of two means; a mean off by a tenth of its spread is seen.
        error = 5 * math.hypot(values.std(), other[name].std()) / math.sqrt(draws) + 1e-9
        assert abs(values.mean() - other[name].mean()) < error, name
        levels = np.linspace(0.05, 0.95, 10)
        limits = np.quantile(other[name], levels)
        below, below_other = ((sample[:, None] <= limits).mean(axis=0) for sample in (values, other[name]))
        assert np.abs(below - below_other).max() < 0.035, name
