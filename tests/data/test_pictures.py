"""Other people's folders: every image, upright and in order, a sentence for a broken one."""

import cv2
import numpy as np
import PIL.Image
import pytest

from ssl_jax.data import pictures, transforms
from ssl_jax.types import UsageError


def test_pictures_come_in_order_upright_and_with_the_channels_asked_for(tmp_path):
    (tmp_path / "b" / "deep").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "b" / "deep" / "grey.png"), np.full((4, 6), 9, np.uint8))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    (tmp_path / "notes.txt").write_text("x")
    photo = PIL.Image.fromarray(np.zeros((4, 6, 3), np.uint8))
    exif = photo.getexif()
    exif[0x0112] = 6  # to be turned by a quarter
    photo.save(tmp_path / "c.jpg", exif=exif)
    files = pictures.find(tmp_path)
    found = dict(pictures.read(files, tmp_path, 3))
    assert list(found) == ["a.png", "c.jpg", "b/deep/grey.png"]
    assert isinstance(found["a.png"], str) and "a.png" in found["a.png"]
    assert found["c.jpg"].shape == (6, 4, 3)
    np.testing.assert_array_equal(found["b/deep/grey.png"], np.full((4, 6, 3), 9, np.uint8))
    assert dict(pictures.read(files, tmp_path, 1))["c.jpg"].shape == (6, 4, 1)


def test_a_folder_without_images_is_one_line(tmp_path):
    with pytest.raises(UsageError, match="holds no images"):
        pictures.find(tmp_path)
    with pytest.raises(UsageError, match="is not a folder"):
        pictures.find(tmp_path / "nothing")


@pytest.mark.parametrize("height, width", [(4, 6), (10, 3), (3, 10), (64, 64)])
def test_a_cover_fills_the_frame_with_the_centre(height, width):
    image = np.zeros((height, width, 1), np.uint8)
    image[height // 4 : -(height // 4) or None, width // 4 : -(width // 4) or None] = 200
    covered = transforms.cover(image, 4, 6)
    assert covered.shape == (4, 6, 1) and covered[1:3, 2:4].min() > 100
    if (height, width) == (4, 6):
        np.testing.assert_array_equal(covered, image)
