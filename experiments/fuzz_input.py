"""What `experiments.fuzz` feeds: values, picture files and texts that are almost right, each drawn by a generator."""

import io
import json
import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image

NUMBERS = (0, -1, 1, 3, 2**31, -(2**63), 2**64, 10**9, 10**400, 0.5, -0.0, 1e308, 5e-324, math.nan, math.inf, -math.inf)
TEXTS = (
    "",
    " ",
    "\n",
    "two\nlines",
    "\u202egnp",
    "\ud800",
    "\0",
    "x" * 5000,
    "../../x",
    "~nobody/x",
    "-x",
    "<script>alert(1)</script>",
    "'\"\\",
    "5 %",
    "-5 %",
    "1e9 epochs",
    "9" * 400 + " epochs",
    "99999999999 Mimages",
    "\u0663 epochs",
    ". steps",
    "0.0000001 %",
    "train[:0]",
    "train[5:2]+",
    "{}",
    "float128",
    "nan",
    "True",
)
TYPES = (
    "",
    ".",
    "..",
    "augment",
    "augment.",
    ".augment.Crop",
    "augment..Crop",
    "augment.Crop.size",
    "augment.Crop\n",
    "augment.np.load",
    "augment._resized",
    "os.system",
    "builtins.eval",
    "types.pathlib.Path",
    "log.replace",
    "log.json.loads",
    "data.prepare.images",
    "data.write.publish",
    "models.inception_weights.convert",
    "run_folder.claim",
    "run_folder.training",
    "loop.fit",
    "\u202e.\ud800",
)


def deep(levels: int) -> Any:
    """Lists in lists and, every other time, a section."""
    value: Any = 0
    for level in range(levels):
        value = [value] if level % 2 else {"inner": value}
    return value


def junk(rng: np.random.Generator) -> Any:
    """One value that a config or a file of a run may hold in place of the right one."""
    others = (
        None,
        True,
        False,
        (),
        ((),),
        (None,),
        {},
        {"type": "augment.Crop"},
        {"": 0},
        {"two\nlines": ()},
        (0.1,) * 9,
    )
    pool: Sequence[Any] = (NUMBERS, TEXTS, others)[int(rng.integers(3))]
    if rng.integers(40) == 0:
        return deep(int(rng.choice([60, 5000])))
    if rng.integers(40) == 0:
        return b"bytes"
    return pool[int(rng.integers(len(pool)))]


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """The paths of everything in nested mappings and tuples or lists, parents first, to a depth of a hundred."""
    if len(path) == 100:
        return []
    inner = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, tuple | list) else ()
    return [place for key, item in inner for place in ((*path, key), *places(item, (*path, key)))]


def replaced(value: Any, path: tuple, change: Any) -> Any:
    """The same nested value with `change(what is there)` at a path; `change` may return `GONE`."""
    if not path:
        return change(value)
    key, rest = path[0], path[1:]
    if isinstance(value, Mapping):
        new = replaced(value[key], rest, change)
        return {k: new if k == key else v for k, v in value.items() if not (k == key and new is GONE)}
    new = replaced(value[key], rest, change)
    kept = [new if place == key else item for place, item in enumerate(value) if not (place == key and new is GONE)]
    return type(value)(kept)


GONE = object()
"""What stands for nothing in `replaced`."""


def mutated(value: Any, rng: np.random.Generator, types: Sequence[str] = ()) -> Any:
    """A nested value with one to three faults; `types` are what sections may name beside `TYPES`."""
    for _ in range(int(rng.integers(1, 4))):
        there = places(value)
        if not there:
            return junk(rng)
        path = there[int(rng.integers(len(there)))]
        value = replaced(value, path, lambda old, path=path: _fault(old, path, rng, types))
    return value


def _fault(old: Any, path: tuple, rng: np.random.Generator, types: Sequence[str]) -> Any:
    number = isinstance(old, int | float) and not isinstance(old, bool)
    # Of the right type, a fault comes as far as the constructors.
    if number and rng.integers(2):
        return NUMBERS[int(rng.integers(len(NUMBERS)))]
    way = int(rng.integers(8))
    if types and (path[-1] == "type" or way == 0):
        pool = TYPES if rng.integers(2) else types
        name = pool[int(rng.integers(len(pool)))]
        return name if path[-1] == "type" else {"type": name}
    if way == 1:
        return GONE
    if way == 2 and isinstance(old, Mapping):
        return {**old, str(rng.choice(["", "x", "tpye", "two\nlines", "self", "parent", "name"])): junk(rng)}
    if way == 3 and isinstance(old, tuple | list):
        return type(old)([*old, *old, junk(rng)][int(rng.integers(3)) :])
    if way == 4 and number:
        return -old if rng.integers(2) else old * 1000
    if way == 5 and not places(old):
        return str(old)
    return junk(rng)


def pictures() -> dict[str, bytes]:
    """Sound files of every format and kind that a decoder may meet, 13x11 px or so, by a name with their suffix."""
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (11, 13, 3), np.uint8)
    colour = PIL.Image.fromarray(pixels)
    tags = PIL.Image.Exif()
    tags[0x0112] = 6
    wanted: dict[str, tuple[PIL.Image.Image, dict[str, Any]]] = {
        f"{mode}.png": (colour.convert(mode), {}) for mode in ("RGB", "RGBA", "L", "LA", "P", "1")
    }
    wanted |= {
        "deep.png": (PIL.Image.fromarray(np.arange(143, dtype=np.uint16).reshape(11, 13) * 400), {}),
        "profile.png": (colour, {"icc_profile": b"profile" * 999}),
        "several.png": (colour, {"save_all": True, "append_images": [colour.rotate(90)]}),
        "RGB.jpg": (colour, {}),
        "L.jpg": (colour.convert("L"), {}),
        "CMYK.jpg": (colour.convert("CMYK"), {}),
        "progressive.jpg": (colour, {"progressive": True}),
        "turned.jpg": (colour, {"exif": tags}),
        "lossy.webp": (colour, {}),
        "lossless.webp": (colour, {"lossless": True}),
        "RGBA.webp": (colour.convert("RGBA"), {"exif": tags}),
        "several.webp": (colour, {"save_all": True, "append_images": [colour.rotate(180)]}),
        "one.gif": (colour.convert("P"), {}),
        "several.gif": (colour.convert("P"), {"save_all": True, "append_images": [colour.rotate(180).convert("P")]}),
        "RGB.bmp": (colour, {}),
        "P.bmp": (colour.convert("P"), {}),
    }
    found = {}
    for name, (picture, options) in wanted.items():
        file = io.BytesIO()
        picture.save(file, {"jpg": "jpeg"}.get(name.rpartition(".")[2], name.rpartition(".")[2]), **options)
        found[name] = file.getvalue()
    return found


def spoilt(data: bytes, others: Sequence[bytes], rng: np.random.Generator) -> bytes:
    """A file with flipped bits, a header that says something else, a cut, a splice or garbage in it."""
    found = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        way, place = int(rng.integers(7)), int(rng.integers(max(len(found), 1)))
        if way == 0:
            for at in rng.integers(0, max(len(found), 1), int(rng.integers(1, 12))):
                found[at : at + 1] = bytes([int(rng.integers(256))])
        elif way in (1, 2):
            at = int(rng.integers(min(len(found), 200) or 1))
            number = int(rng.choice([0, 1, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1, 5000, 100_000]))
            form = str(rng.choice([">I", "<I", ">H", "<H", "B"]))
            word = struct.pack(form, number & (256 ** struct.calcsize(form) - 1))
            found[at : at + len(word)] = word
        elif way == 3:
            del found[place:]
        elif way == 4:
            other = others[int(rng.integers(len(others)))]
            found[place:] = other[int(rng.integers(len(other))) :]
        elif way == 5:
            found[place:place] = rng.bytes(int(rng.integers(1, 64)))
        else:
            del found[place : place + int(rng.integers(1, 64))]
    # Else the checksums would keep most faults from the code behind them.
    return checksummed(bytes(found)) if rng.integers(2) else bytes(found)


def checksummed(data: bytes) -> bytes:
    """A PNG file with the right checksum behind each part that is whole; other files as they are."""
    if data[:4] != b"\x89PNG":
        return data
    found, place = bytearray(data), 8
    while place + 12 <= len(found):
        (length,) = struct.unpack_from(">I", found, place)
        if place + 12 + length > len(found):
            break
        found[place + 8 + length : place + 12 + length] = struct.pack(
            ">I", zlib.crc32(bytes(found[place + 4 : place + 8 + length]))
        )
        place += 12 + length
    return bytes(found)


def spoilt_text(text: str, rng: np.random.Generator) -> bytes:
    """A JSON file with faults that no value has: cut, garbled, endless, in another encoding, or another kind at all."""
    data = text.encode("utf-8", "surrogatepass")
    place = int(rng.integers(len(data) + 1))
    ways = (
        data[:place],
        data[:place] + rng.bytes(5) + data[place:],
        data[:place] + data[place + 1 :],
        data[:place] + b"[" * 100_000 + data[place:],
        b"\xef\xbb\xbf" + data,
        text.encode("utf-16", "surrogatepass"),
        b"",
        b"null",
        b"[]",
        b'{"a": ' * 100_000,
        b"1" * 5000,
        data.replace(b": ", b': 1e999, "x": ', 1),
        data + data,
    )
    return ways[int(rng.integers(len(ways)))]


def as_json(value: Any) -> str:
    """Any nested value as JSON text; what JSON does not know is written as text."""
    try:
        return json.dumps(value, default=str)
    except RecursionError:
        return "[" * 5000 + "]" * 5000
