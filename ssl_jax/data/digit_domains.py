"""Two looks of scikit-learn's handwritten digits, as a TFDS data set for unpaired translation that needs no network.

Domain A is the scan, domain B a fixed map of it, so that a translation can be held against the truth, which no data set
of photographs allows. Nothing that is trained on comes in both looks.
"""

import contextlib
import pathlib
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

from ssl_jax.data import catalog, write

NAME = "digit_domains"
SIDE_PX = 16
# The scans of each domain's training, and where those of the test begin.
TRAIN_EXAMPLES = 700
TEST_FROM = 2 * TRAIN_EXAMPLES
_BLUR_PX = 0.7
# Red, green, blue: the background's upper left and lower right corner, and the ink.
_CORNERS = np.array([[255, 238, 170], [175, 225, 255]], np.float32)
_INK = np.array([100, 0, 70], np.float32)


def look_a(scans: np.ndarray) -> np.ndarray:
    """The scans in domain A: white strokes on black, enlarged linearly from pixel centre to pixel centre.

    Args:
        scans: [n, 8, 8], 0 to 16.

    Returns:
        uint8 [n, 16, 16, 3], all channels alike.
    """
    pixels = np.round(scans * 255 / 16).astype(np.uint8)
    grey = np.stack([cv2.resize(scan, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_LINEAR) for scan in pixels])
    return np.repeat(grey[..., None], 3, axis=-1)


def look_b(images: np.ndarray) -> np.ndarray:
    """Images of domain A in domain B: dark, coloured, soft strokes on a light diagonal gradient.

    `(1 - s) * background + s * ink`, where s is the mean of the channels as 0 to 1, blurred (Gaussian, 0.7 px).

    Args:
        images: uint8 [n, 16, 16, 3].

    Returns:
        uint8 [n, 16, 16, 3].
    """
    strokes = images.astype(np.float32).mean(axis=-1) / 255
    blurred = [cv2.GaussianBlur(s, (7, 7), _BLUR_PX, borderType=cv2.BORDER_REPLICATE) for s in strokes]
    s = np.stack(blurred)[..., None]
    line = np.arange(SIDE_PX, dtype=np.float32)
    along = ((line[:, None] + line) / (2 * (SIDE_PX - 1)))[..., None]
    background = (1 - along) * _CORNERS[0] + along * _CORNERS[1]
    return np.round((1 - s) * background + s * _INK).astype(np.uint8)


def ensure(data_dir: str = "") -> pathlib.Path:
    """Prepares the set unless it is there, and returns its version folder.

    Splits: `trainA` (scans 0 to 699), `trainB` (scans 700 to 1,399), and `testA` and `testB`, which are both looks of
    scans 1,400 to 1,796 in one order. Images are uint8 [16, 16, 3], labels the digits, `id` the scan's number in
    scikit-learn's order. Safe when several processes come at once.

    Args:
        data_dir: where prepared sets lie; "" is TFDS's own default.

    Raises:
        types.UsageError: nothing can be written there.
        types.RunError: the disk is full.
    """
    data_folder = catalog.data_folder(data_dir)
    target = data_folder / NAME / write.VERSION
    if (target / catalog.INFO).is_file():
        return target
    from sklearn import datasets  # a second of every start, and needed only once

    scans = datasets.load_digits()
    images = look_a(scans.images)
    others = look_b(images)
    test = range(TEST_FROM, len(images))
    parts = {
        "trainA": (images, range(TRAIN_EXAMPLES)),
        "trainB": (others, range(TRAIN_EXAMPLES, TEST_FROM)),
        "testA": (images, test),
        "testB": (others, test),
    }

    def records(look: np.ndarray, indices: range) -> Iterator[tuple[int, dict[str, Any]]]:
        for index in indices:
            _, png = cv2.imencode(".png", cv2.cvtColor(look[index], cv2.COLOR_RGB2BGR))
            yield index, {"image": png.tobytes(), "id": str(index), "label": int(scans.target[index])}

    with write.workspace(data_folder) as scratch:
        splits = {split: lambda part=part: records(*part) for split, part in parts.items()}
        names = tuple(str(digit) for digit in range(10))
        built = write.records(NAME, splits, (SIDE_PX, SIDE_PX, 3), names, scratch, ordered=True)
        # Where another process was faster, what it wrote is the same.
        with contextlib.suppress(FileExistsError):
            write.publish(built, target)
    return target
