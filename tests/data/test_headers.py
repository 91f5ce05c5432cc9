"""What a picture's header declares, in each format, and that a decoder is never asked for more than the bound."""

import io
import struct

import PIL.Image
import pytest

from experiments import fuzz_input
from ssl_jax.data import folder, headers, pictures, transforms
from ssl_jax.types import UsageError


def refused(call, *arguments):
    """The one line with which a call is refused."""
    with pytest.raises((UsageError, ValueError)) as error:
        call(*arguments)
    assert len(str(error.value).splitlines()) == 1, str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", sorted(fuzz_input.pictures()))
def test_a_header_says_what_pillow_reads(name):
    data = fuzz_input.pictures()[name]
    with PIL.Image.open(io.BytesIO(data)) as picture:
        assert headers.size(data) == (picture.height, picture.width)
    assert transforms.decode(data, 3).shape[:2] == headers.size(data)


def declared(name, height, width):
    """A small file whose header declares other sides, its checksums right."""
    data = bytearray(fuzz_input.pictures()[name])
    place, form = {
        "RGB.png": (16, ">II"),
        "RGB.bmp": (18, "<ii"),
        "one.gif": (6, "<HH"),
        "lossy.webp": (26, "<HH"),
        "RGB.jpg": (data.find(b"\xff\xc0") + 5, ">HH"),
    }[name]
    sides = (height, width) if name == "RGB.jpg" else (width, height)
    struct.pack_into(form, data, place, *sides)
    return fuzz_input.checksummed(bytes(data))


@pytest.mark.parametrize("name", ["RGB.png", "RGB.bmp", "one.gif", "lossy.webp", "RGB.jpg"])
def test_a_picture_that_declares_too_much_is_not_decoded(name, tmp_path, monkeypatch):
    monkeypatch.setenv(headers.LIMIT_VARIABLE, "100")
    data = declared(name, 16000, 12000)
    line = refused(transforms.decode, data, 3)
    assert "it declares 16000x12000 px (192 Mpx), and 100 Mpx are decoded at most: set SSL_JAX_LARGEST_MPX=192" in line
    (tmp_path / name).write_bytes(data)
    found = folder.inspect_one(folder.File(tmp_path / name, name, "train", None))
    assert found.startswith(str(tmp_path / name)) and (" px" in found or "neither PNG" in found)
    monkeypatch.setenv(headers.LIMIT_VARIABLE, "200")
    assert headers.check(data) == (16000, 12000)
    monkeypatch.setenv(headers.LIMIT_VARIABLE, "many")
    assert "SSL_JAX_LARGEST_MPX='many' is no whole number" in refused(headers.check, data)


def test_large_pictures_that_are_so_are_read(tmp_path):
    PIL.Image.new("RGB", (6000, 6000), (9, 90, 200)).save(tmp_path / "large.png")
    ((name, picture),) = pictures.read([tmp_path / "large.png"], tmp_path, 3)
    assert name == "large.png" and picture.shape == (6000, 6000, 3) and picture[-1, -1].tolist() == [9, 90, 200]


def test_a_part_of_a_png_is_no_longer_than_its_file(tmp_path):
    data = bytearray(fuzz_input.pictures()["RGB.png"])
    struct.pack_into(">I", data, 33, 2**31 - 1)
    assert "a PNG file that is cut off" in refused(transforms.decode, bytes(data), 3)


def test_a_file_that_is_larger_than_any_picture_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setenv(headers.LIMIT_VARIABLE, "1")
    with (tmp_path / "1.png").open("wb") as file:
        file.truncate(10**9)
    found = folder.inspect_one(folder.File(tmp_path / "1.png", "1.png", "train", None))
    assert "a file of 1,000,000,000 bytes, more than any picture that is decoded has (8,000,000)" in found
