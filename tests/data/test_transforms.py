"""`data.transforms` against Pillow, torchvision and arithmetic."""

import importlib
import importlib.util
import io
import math
import sys

import numpy as np
import PIL.Image
import pytest

from ssl_jax import types
from ssl_jax.data import transforms

SCALE, RATIO = (0.2, 1.0), (3 / 4, 4 / 3)


def encoded(picture, kind, **options):
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def pixels(*shape, high=256, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, high, shape, dtype)


COLOUR = PIL.Image.fromarray(pixels(12, 17, 3))


@pytest.mark.parametrize(
    ("mode", "kind", "tolerance"),
    [
        ("RGB", "PNG", 0),
        ("RGBA", "PNG", 0),
        ("P", "PNG", 0),
        ("L", "PNG", 0),
        ("LA", "PNG", 0),
        ("1", "PNG", 0),
        ("RGB", "JPEG", 0),
        ("L", "JPEG", 0),
        ("CMYK", "JPEG", 1),
        ("RGB", "WEBP", 0),
        ("RGBA", "WEBP", 0),
    ],
)
def test_decodes_colour_as_pillow(mode, kind, tolerance):
    data = encoded(COLOUR.convert(mode), kind)
    expected = np.asarray(PIL.Image.open(io.BytesIO(data)).convert("RGB"))
    image = transforms.decode(data, 3)
    assert image.dtype == np.uint8 and image.shape == (12, 17, 3)
    assert np.abs(image.astype(int) - expected).max() <= tolerance


@pytest.mark.parametrize("mode", ["L", "LA", "1"])
def test_decodes_grey_as_pillow(mode):
    data = encoded(COLOUR.convert(mode), "PNG")
    image = transforms.decode(data, 1)
    assert image.shape == (12, 17, 1)
    np.testing.assert_array_equal(image[..., 0], PIL.Image.open(io.BytesIO(data)).convert("L"))


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_keep_their_upper_eight(channels):
    deep = pixels(12, 17, high=65536, dtype=np.uint16)
    image = transforms.decode(encoded(PIL.Image.fromarray(deep), "PNG"), channels)
    np.testing.assert_array_equal(image, np.repeat(deep[..., None] >> 8, channels, axis=-1))


def test_orientation_tag_is_ignored():
    tags = PIL.Image.Exif()
    tags[0x0112] = 6
    assert transforms.decode(encoded(COLOUR, "JPEG", exif=tags), 3).shape == (12, 17, 3)


@pytest.mark.parametrize("data", [b"", b"no image", encoded(COLOUR, "PNG")[:60]])
def test_undecodable_bytes_raise_value_error(data):
    with pytest.raises(ValueError):
        transforms.decode(data, 3)


@pytest.fixture(scope="module")
def torchvision_transforms():
    torch = pytest.importorskip("torch", reason="needs the parity extra: make test PARITY=1")
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("needs the parity extra: make test PARITY=1")
    library = None
    try:
        found = importlib.import_module("torchvision.transforms")
    except RuntimeError:
        # A torchvision built for CUDA misses two operators beside a CPU torch; its transforms need neither.
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        found = importlib.import_module("torchvision.transforms")
    yield torch, found
    del library


@pytest.mark.parametrize(
    ("height", "width", "scale", "least_boxes"),
    [
        (48, 64, SCALE, 190),
        (90, 40, SCALE, 100),
        (40, 90, SCALE, 100),
        (500, 40, SCALE, 1),
        (40, 500, SCALE, 1),
        (8, 8, (0.01, 0.02), 20),
    ],
)
def test_crop_box_draws_what_torchvision_draws(torchvision_transforms, monkeypatch, height, width, scale, least_boxes):
    torch, reference = torchvision_transforms
    image = torch.zeros(3, height, width)
    seen = set()
    for seed in range(200):
        box = transforms.crop_box(height, width, scale, RATIO, np.random.default_rng(seed))
        rng = np.random.default_rng(seed)

        def uniform(self, low, high, rng=rng):
            return torch.tensor([rng.uniform(float(low), float(high))], dtype=torch.float64)

        def randint(low, high, size, rng=rng):
            return torch.tensor([int(rng.integers(low, high))])

        with monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "uniform_", uniform)
            patch.setattr(torch, "randint", randint)
            assert box == reference.RandomResizedCrop.get_params(image, scale, RATIO)
        seen.add(box)
    assert len(seen) >= least_boxes


def test_crop_box_stays_inside_and_covers_the_asked_area():
    rng = np.random.default_rng(1)
    boxes = np.array([transforms.crop_box(200, 300, SCALE, RATIO, rng) for _ in range(4000)])
    top, left, height, width = boxes.T
    assert top.min() >= 0 and left.min() >= 0 and (top + height).max() <= 200 and (left + width).max() <= 300
    area, aspect = height * width / 60000, width / height
    # The greatest box of ratio 4/3 in 200x300 is 200x267.
    assert 0.195 < area.min() < 0.205 and 0.88 < area.max() < 0.8901
    # Boxes at random places of a free axis: the mean position is the middle.
    assert abs((left / (300 - width + 1e-9))[width < 299].mean() - 0.5) < 0.02
    assert math.isclose(aspect.min(), 3 / 4, rel_tol=0.03) and math.isclose(aspect.max(), 4 / 3, rel_tol=0.03)


def test_a_long_image_falls_back_to_its_middle():
    assert transforms.crop_box(10, 1000, (1.0, 1.0), RATIO, np.random.default_rng(0)) == (0, 493, 10, 13)
    assert transforms.crop_box(1000, 10, (1.0, 1.0), RATIO, np.random.default_rng(0)) == (493, 0, 13, 10)


@pytest.mark.parametrize("channels", [1, 3])
def test_random_resized_crop_is_its_box_resized_and_a_function_of_the_generator(channels):
    image = pixels(40, 56, channels)
    one = transforms.random_resized_crop(image, 16, SCALE, RATIO, np.random.default_rng(3))
    again = transforms.random_resized_crop(image, 16, SCALE, RATIO, np.random.default_rng(3))
    other = transforms.random_resized_crop(image, 16, SCALE, RATIO, np.random.default_rng(4))
    assert one.shape == (16, 16, channels) and one.dtype == np.uint8
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
    top, left, height, width = transforms.crop_box(40, 56, SCALE, RATIO, np.random.default_rng(3))
    box = image[top : top + height, left : left + width]
    assert min(height, width) > 16
    expected = np.einsum("iy,yxc,jx->ijc", areas(height, 16), box.astype(float), areas(width, 16))
    assert np.abs(one - expected).max() <= 1


def areas(size, cells):
    """Weights that average `size` pixels over `cells` equal cells, pixels on a border shared by area."""
    edges = np.arange(cells + 1) * size / cells
    overlap = np.minimum(edges[1:, None], np.arange(1, size + 1)) - np.maximum(edges[:-1, None], np.arange(size))
    return np.clip(overlap, 0, None) * cells / size


def test_shrinking_by_whole_factors_averages_areas_as_pillow():
    image = pixels(48, 64, 3)
    expected = PIL.Image.fromarray(image).resize((16, 12), PIL.Image.Resampling.BOX)
    ours = transforms.resize_shorter(image, 12)
    assert ours.shape == (12, 16, 3)
    assert np.abs(ours.astype(int) - expected).max() <= 1


def test_growing_is_bilinear_as_pillow():
    image = pixels(12, 16, 3)
    expected = PIL.Image.fromarray(image).resize((64, 48), PIL.Image.Resampling.BILINEAR)
    assert np.abs(transforms.resize_shorter(image, 48).astype(int) - expected).max() <= 1


@pytest.mark.parametrize(("height", "width", "expected"), [(33, 50, (16, 24)), (50, 33, (24, 16)), (33, 33, (16, 16))])
def test_resize_shorter_keeps_proportions_rounded_down(height, width, expected):
    assert transforms.resize_shorter(pixels(height, width, 1), 16).shape == (*expected, 1)


def test_center_crop_is_the_middle():
    image = pixels(9, 12, 3)
    np.testing.assert_array_equal(transforms.center_crop(image, 5), image[2:7, 4:9])
    np.testing.assert_array_equal(transforms.center_crop(image, 9), image[:, 2:11])


def test_center_crop_refuses_a_small_image():
    with pytest.raises(types.UsageError, match=r"9x12 px is smaller than the crop of 10 px"):
        transforms.center_crop(pixels(9, 12, 3), 10)
