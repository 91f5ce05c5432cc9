"""The handwritten digits that come inside scikit-learn, as a TFDS data set: a set that needs no network.

1,797 grey scans of 8x8 pixels (Alpaydin and Kaynak 1998, UCI's test part); nobody's permission or download needed.
"""

import contextlib
import pathlib
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

from ssl_jax.data import catalog, write

NAME = "digits"
TRAIN_EXAMPLES = 1400


def ensure(data_dir: str = "") -> pathlib.Path:
    """Prepares the set unless it is there, and returns its version folder.

    Splits: `train` (the first 1,400 scans) and `test` (the last 397), in scikit-learn's order. Images are uint8
    [8, 8, 1], `round(value * 255 / 16)` of scikit-learn's 0 to 16; labels are the digits. Safe when several processes
    come at once.

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
    pixels = np.round(scans.images * 255 / 16).astype(np.uint8)
    parts = {"train": range(TRAIN_EXAMPLES), "test": range(TRAIN_EXAMPLES, len(pixels))}

    def records(indices: range) -> Iterator[tuple[int, dict[str, Any]]]:
        for index in indices:
            _, png = cv2.imencode(".png", pixels[index])
            yield index, {"image": png.tobytes(), "id": str(index), "label": int(scans.target[index])}

    with write.workspace(data_folder) as scratch:
        splits = {split: lambda indices=indices: records(indices) for split, indices in parts.items()}
        names = tuple(str(digit) for digit in range(10))
        built = write.records(NAME, splits, (8, 8, 1), names, scratch, ordered=True)
        # Where another process was faster, what it wrote is the same.
        with contextlib.suppress(FileExistsError):
            write.publish(built, target)
    return target
