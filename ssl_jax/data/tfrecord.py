"""From TFRecord files to ArrayRecord files, record by record, without TensorFlow."""

import pathlib
import struct
from collections.abc import Iterator

from array_record.python import array_record_module

from ssl_jax import types

_HEAD, _TAIL = struct.Struct("<QI"), 4
_CRC32C_POLYNOMIAL = 0x82F63B78


def _crc32c_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (_CRC32C_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return tuple(table)


_TABLE = _crc32c_table()


def masked_crc32c(data: bytes) -> int:
    """TFRecord's checksum: CRC-32C, rotated right by 15 bits, plus 0xA282EAD8, modulo 2^32."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def read(path: pathlib.Path) -> Iterator[bytes]:
    """The records of one TFRecord file.

    The checksum of every record's length is verified, which shows a cut-off, shifted or foreign file; that of the data
    is not, since it takes a tenth of a second a megabyte in Python.

    Raises:
        types.RunError: the file is cut off or is no TFRecord file, with the number of the record where that shows.
    """
    with path.open("rb") as file:
        count = 0
        while head := file.read(_HEAD.size):
            if len(head) < _HEAD.size:
                raise types.RunError(f"{path} is cut off in record {count}: get the file again")
            length, checksum = _HEAD.unpack(head)
            if masked_crc32c(head[:8]) != checksum:
                raise types.RunError(f"{path} is damaged at record {count} or no TFRecord file: get the file again")
            data = file.read(length + _TAIL)
            if len(data) < length + _TAIL:
                raise types.RunError(f"{path} is cut off in record {count}: get the file again")
            yield data[:-_TAIL]
            count += 1


def convert(source: pathlib.Path, target: pathlib.Path, records: int) -> None:
    """Writes the records of a TFRecord file into a new ArrayRecord file, one record a group for random access.

    Raises:
        types.RunError: the source is damaged or does not hold `records` records.
    """
    writer = array_record_module.ArrayRecordWriter(str(target), "group_size:1")
    try:
        count = 0
        for data in read(source):
            writer.write(data)
            count += 1
    finally:
        writer.close()
    if count != records:
        raise types.RunError(f"{source} holds {count} records where dataset_info.json counts {records}: get it again")
