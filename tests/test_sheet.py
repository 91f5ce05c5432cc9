import numpy as np
import pytest

from ssl_jax import sheet


def test_grid_places_scales_and_converts():
    images = np.stack([np.full((2, 3, 1), value, np.float32) for value in (-1.0, 0.0, 1.0, 5.0, -1.0)])
    picture = sheet.grid(images, columns=2, scale_px=7)
    assert (picture.dtype, picture.shape) == (np.uint8, (3 * 4 + 2 * 2, 2 * 6 + 2, 3))
    assert (picture[:4, :6] == 0).all()
    assert (picture[:4, 8:] == 128).all()
    assert (picture[6:10, :6] == 255).all()
    assert (picture[6:10, 8:] == 255).all()
    assert (picture[12:, :6] == 0).all()
    raw = np.random.default_rng(0).integers(0, 256, (1, 9, 9, 3), np.uint8)
    np.testing.assert_array_equal(sheet.grid(raw, columns=4, scale_px=4), raw[0])
    with pytest.raises(ValueError, match="float"):
        sheet.grid(images.astype(np.int32), columns=2)


def test_bytes_are_rounded_and_cut():
    values = np.array([[-1.0, 1.0, 0.0], [-7.0, 1.001, 1e30], [-1 + 0.4 / 127.5, -1 + 0.6 / 127.5, np.inf]])
    expected = np.array([[0, 255, 128], [0, 255, 255], [0, 1, 255]], np.uint8)
    for kind in (np.float64, np.float32):
        with np.errstate(over="ignore"):
            found = sheet.as_bytes(values.astype(kind))
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, expected)


def test_bytes_come_back_as_they_were():
    raw = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1)
    np.testing.assert_array_equal(sheet.as_bytes(raw.astype(np.float32) / 127.5 - 1), raw)
    np.testing.assert_array_equal(sheet.as_bytes((raw.astype(np.float32) / 255 - 0.5) / 0.5), raw)
