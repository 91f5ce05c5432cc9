import pickle

import numpy as np
import pytest

from ssl_jax.data import squares
from ssl_jax.types import UsageError


class Few:
    """Three images of different sizes."""

    name, split, examples, class_names, image_shape = "few", "train", 3, ("a", "b"), (None, None, 3)

    def read(self, index):
        shape = (20 + index, 35 - index, 3)
        return {"image": np.random.default_rng(index).integers(0, 256, shape, np.uint8), "label": index % 2}


def cubic(distance):
    """Keys's kernel with a = -1/2, which is Pillow's."""
    x = np.abs(distance)
    return np.where(x < 1, 1.5 * x**3 - 2.5 * x**2 + 1, np.where(x < 2, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2, 0))


def weights(old, new):
    """Row i: what each old pixel gives to the new pixel i; the kernel is stretched where the image shrinks."""
    scale = old / new
    centres = (np.arange(new) + 0.5) * scale - 0.5
    matrix = cubic((np.arange(old) - centres[:, None]) / max(scale, 1.0))
    return matrix / matrix.sum(1, keepdims=True)


@pytest.mark.parametrize("size_px", [7, 16, 50])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_square_by_the_formula_of_the_antialiased_cubic(size_px, channels):
    image = np.random.default_rng(0).integers(0, 256, (24, 31, channels), np.uint8)
    found = squares.square(image, size_px)
    assert found.shape == (size_px, size_px, channels) and found.dtype == np.uint8
    # Columns first, and a byte is made of each pass.
    across = np.einsum("jw,hwc->hjc", weights(31, size_px), image.astype(float)).round().clip(0, 255)
    expected = np.einsum("ih,hjc->ijc", weights(24, size_px), across).round().clip(0, 255)
    assert np.abs(found - expected).max() <= 1


def test_an_image_of_that_size_is_left_alone():
    image = np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)
    np.testing.assert_array_equal(squares.square(image, 9), image)


def test_squares_are_a_source():
    source = pickle.loads(pickle.dumps(squares.Squares(Few(), 8)))
    assert (len(source), source.examples, source.name, source.image_shape) == (3, 3, "few", (8, 8, 3))
    assert source.bytes_when_resident == 3 * 8 * 8 * 3
    everything = source.read_all()
    assert everything["image"].shape == (3, 8, 8, 3) and everything["image"].dtype == np.uint8
    assert everything["label"].tolist() == [0, 1, 0] and everything["label"].dtype == np.int32
    for index in range(3):
        np.testing.assert_array_equal(source[index]["image"], squares.square(Few().read(index)["image"], 8))
        np.testing.assert_array_equal(everything["image"][index], source[index]["image"])
    np.testing.assert_array_equal(source.read_rows(np.array([2, 0]))["image"], everything["image"][[2, 0]])


def test_an_impossible_side_is_refused():
    with pytest.raises(UsageError, match="images of 'few' cannot be 0 px wide: give at least 1"):
        squares.Squares(Few(), 0)
