"""How large a picture says it is, read from the first bytes of its file: asked before a decoder makes room for it.

A file of some kilobytes may declare pixels of many gigabytes. What the decoders refuse by themselves differs, changes
with their versions and is said in their words, so the bound is drawn here, once for all of them.
"""

import os
import struct

from ssl_jax.types import UsageError

LARGEST_MPX = 256
"""Decoded pictures have at most so many million pixels: 768 MB in colour; phones take pictures of 200."""
LIMIT_VARIABLE = "SSL_JAX_LARGEST_MPX"
"""The environment variable that sets another bound, for this process and those that it starts."""
FORMATS = "PNG, JPEG, WebP, GIF or BMP"

_BYTES_PER_PX = 8
# JPEG's start-of-frame markers: all of C0 to CF but those for tables and arithmetic conditioning.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ALONE = frozenset((0x00, 0x01, *range(0xD0, 0xD9)))
# OpenCV's own bounds, the first of which its own variable moves.
_OPENCV_PX, _LONGEST_SIDE_PX = 2**30, 2**20


def kind(head: bytes) -> str | None:
    """The format of a file by its first 16 bytes: "png", "jpeg", "webp", "gif", "bmp", or None for any other."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "gif"
    return "bmp" if head[:2] == b"BM" else None


def size(data: bytes) -> tuple[int, int]:
    """Height and width in pixels as the header declares them, as stored, before any turn.

    Of an animation the larger of its canvas and its first frame. Nothing is decoded.

    Raises:
        ValueError: another format than `FORMATS`, or a header that is cut off or declares no pixels.
    """
    found = kind(data[:16])
    if found is None:
        raise ValueError(f"neither {FORMATS} inside")
    readers = {"png": _png, "jpeg": _jpeg, "webp": _webp, "gif": _gif, "bmp": _bmp}
    try:
        height, width = readers[found](data)
    except (struct.error, IndexError) as error:
        raise ValueError("its header is cut off") from error
    if height < 1 or width < 1:
        raise ValueError(f"its header declares {height}x{width} px")
    return height, width


def largest_px() -> int:
    """How many pixels are decoded at most: `LARGEST_MPX` millions, or what the environment says instead.

    Raises:
        UsageError: for an environment variable that is no whole number of megapixels.
    """
    told = os.environ.get(LIMIT_VARIABLE, "")
    if not told:
        return LARGEST_MPX * 10**6
    if not (told.isascii() and told.isdecimal() and int(told[:9]) > 0 and len(told) <= 9):
        raise UsageError(f"{LIMIT_VARIABLE}={told[:40]!r} is no whole number of megapixels, such as {LARGEST_MPX}")
    return int(told) * 10**6


def check_size(height: int, width: int) -> None:
    """Raises ValueError for a picture of more pixels, or of longer sides, than are decoded."""
    limit_px = largest_px()
    if height * width > limit_px:
        needed_mpx = -(-height * width // 10**6)
        beyond = f" and OPENCV_IO_MAX_IMAGE_PIXELS={height * width}" if height * width > _OPENCV_PX else ""
        raise ValueError(
            f"it declares {height}x{width} px ({needed_mpx:,} Mpx), and {limit_px // 10**6:,} Mpx are decoded at most: "
            f"set {LIMIT_VARIABLE}={needed_mpx}{beyond} in the environment if it is really so large"
        )
    if max(height, width) > _LONGEST_SIDE_PX:
        raise ValueError(f"it declares {height}x{width} px, and a side has at most {_LONGEST_SIDE_PX:,} px")


def check_bytes(count: int) -> None:
    """Raises ValueError for a file of more bytes than the largest picture takes without any compression."""
    most = largest_px() * _BYTES_PER_PX
    if count > most:
        raise ValueError(f"a file of {count:,} bytes, more than any picture that is decoded has ({most:,})")


def check(data: bytes) -> tuple[int, int]:
    """`size` of a whole file, refused where it is more than is decoded, or where a PNG is cut off.

    Raises:
        ValueError: as `size` and `check_size` do, and for a PNG with a part that is longer than the file.
    """
    height, width = size(data)
    check_size(height, width)
    if kind(data) == "png":
        _check_parts(data)
    return height, width


def _check_parts(data):
    # OpenCV makes room for what a part says of its length, up to 4 GB, before it looks whether so much is there.
    place = 8
    while True:
        if place + 12 > len(data):
            raise ValueError("a PNG file that is cut off")
        (length,) = struct.unpack_from(">I", data, place)
        if data[place + 4 : place + 8] == b"IEND":
            return
        place += 12 + length


def _png(data):
    if data[12:16] != b"IHDR":
        raise ValueError("a PNG file that does not begin with its header")
    width, height = struct.unpack_from(">II", data, 16)
    return height, width


def _jpeg(data):
    place = 2
    while True:
        # As decoders do, over whatever lies between two markers, fillings (FF) and stuffed zeros included.
        place = data.find(b"\xff", place)
        marker = data[place + 1] if place >= 0 else data[len(data)]
        if marker == 0xFF:
            place += 1
        elif marker in _ALONE:
            place += 2
        elif marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, place + 5)
            return height, width
        elif marker in (0xD9, 0xDA):
            raise ValueError("a JPEG file without a frame header")
        else:
            (length,) = struct.unpack_from(">H", data, place + 2)
            place += 2 + max(length, 2)


def _webp(data):
    name = data[12:16]
    if name == b"VP8X":
        width, height = (int.from_bytes(data[place : place + 3], "little") + 1 for place in (24, 27))
        data[29]
    elif name == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif name == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    else:
        raise ValueError("a WebP file without a picture")
    return height, width


def _gif(data):
    width, height = struct.unpack_from("<HH", data, 6)
    place = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    while data[place] == 0x21:  # extensions, in blocks that say their length
        place += 2
        while length := data[place]:
            place += 1 + length
        place += 1
    if data[place] != 0x2C:
        raise ValueError("a GIF file without a picture")
    left, top, frame_width, frame_height = struct.unpack_from("<HHHH", data, place + 1)
    return max(height, top + frame_height), max(width, left + frame_width)


def _bmp(data):
    (length,) = struct.unpack_from("<I", data, 14)
    if length == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return abs(height), abs(width)
