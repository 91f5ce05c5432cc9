"""Arrays out of `.npz` and `.npy` files of anybody's: no pickle is loaded, and what they declare is looked at first.

A compressed archive of a few megabytes may declare arrays of many gigabytes, and NumPy makes room for what an array's
header says before it reads. So the headers are held against the sizes of the entries, and these against the memory.
"""

import math
import os
import pathlib
import zipfile
from collections.abc import Collection
from typing import Any

import numpy as np

_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read(path: pathlib.Path, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file by name; of `names` alone, as far as they are there, where those are given.

    Raises:
        OSError: the file cannot be opened.
        ValueError: on one line, for what is no such archive, is damaged, holds objects, which only a pickle can keep,
            or is larger than the machine's memory.
    """
    with path.open("rb") as file:
        try:
            check_zip(file)
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                wanted = archive.files if names is None else [name for name in names if name in archive]
                return {name: _array(archive, name) for name in wanted}
        except Exception as error:  # a damaged archive makes zipfile, zlib and numpy raise what they like
            raise ValueError(_one_line(error)) from error


def read_array(path: pathlib.Path) -> np.ndarray:
    """The array of an `.npy` file.

    Raises:
        OSError: the file cannot be opened.
        ValueError: as of `read`.
    """
    with path.open("rb") as file:
        try:
            _check_array(file, os.fstat(file.fileno()).st_size)
            file.seek(0)
            return np.load(file, allow_pickle=False)
        except Exception as error:  # as above
            raise ValueError(_one_line(error)) from error


def check_zip(file: Any) -> None:
    """Raises ValueError where a zip archive, open for reading, unpacks to more than the machine's memory.

    The headers of its entries that are arrays (`.npy`) must agree with the entries' sizes. Entries never unpack to more
    than they declare, since `zipfile` stops there.
    """
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        declared, there = sum(entry.file_size for entry in entries), memory()
        if declared > there:
            raise ValueError(f"it unpacks to {declared:,} bytes, and this machine's memory has {there:,}")
        for entry in entries:
            if entry.filename.endswith(".npy"):
                with archive.open(entry) as content:
                    _check_array(content, entry.file_size)


def memory() -> int:
    """The bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _array(archive, name):
    found = archive[name]
    # NumPy hands out the bytes of an entry that it does not know.
    if not isinstance(found, np.ndarray):
        raise ValueError(f"its entry {name!r} is no array")
    return found


def _check_array(file, size):
    version = np.lib.format.read_magic(file)
    if version not in _READERS:
        raise ValueError(f"an array in version {version} of NumPy's format, and 1.0 and 2.0 are read")
    shape, _, dtype = _READERS[version](file)
    if dtype.hasobject:
        raise ValueError("it holds objects, which only a pickle can keep, and no pickle is loaded")
    if any(side < 0 for side in shape) or math.prod(shape) * dtype.itemsize > size:
        raise ValueError(f"an array declares {dtype} {list(shape)} and the file does not have so much")


def _one_line(error):
    if isinstance(error, KeyError) and error.args:
        return f"no entry {error.args[0]!r}"
    if "allow_pickle" in str(error):
        return "it is no file of arrays, or holds objects, which only a pickle can keep; no pickle is loaded"
    return " ".join(str(error).split())[:300] or type(error).__name__
