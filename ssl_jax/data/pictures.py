"""Pictures from a folder of anybody's, one after the other, for what classifies or changes them."""

import pathlib
from collections.abc import Iterator

import numpy as np

from ssl_jax import types
from ssl_jax.data import folder, transforms


def find(root: pathlib.Path) -> list[pathlib.Path]:
    """Every image file below `root`, at any depth, sorted.

    Raises:
        types.UsageError: no folder, one that cannot be read, or none with an image in it.
    """
    if not root.is_dir():
        raise types.UsageError(f"{root} is not a folder: give a folder of images")
    try:
        files = [path for path in folder.walk(root) if folder.image_like(path)]
    except OSError as error:
        raise types.UsageError(f"cannot read {error.filename or root} ({error.strerror})") from error
    if not files:
        raise types.UsageError(f"{root} holds no images: PNG, JPEG and WebP files are read")
    return files


def read(files: list[pathlib.Path], root: pathlib.Path, channels: int) -> Iterator[tuple[str, np.ndarray | str]]:
    """Each file's path below `root`, and its picture or, where it is broken, what is wrong with it.

    Yields:
        (path, uint8 [h, w, channels], upright) or (path, a sentence).
    """
    for path in files:
        name = folder.text(path.relative_to(root).as_posix())
        found = folder.inspect_one(folder.File(path, name, "input", None))
        yield name, found if isinstance(found, str) else transforms.decode(folder.content(found), channels)
