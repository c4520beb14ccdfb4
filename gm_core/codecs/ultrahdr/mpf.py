"""Multi-Picture Format index (CIPA DC-007): where the pictures of one JPEG file begin."""

from __future__ import annotations

import struct
from typing import NamedTuple

from ...errors import ImageReadError

_VERSION, _COUNT, _ENTRIES = 0xB000, 0xB001, 0xB002
_UNDEFINED, _LONG = 7, 4
_PRIMARY_ATTRIBUTE = 0x00030000
_MAX_PICTURES = 32
MPF_LENGTH = 82


class Picture(NamedTuple):
    """One picture of the index. offset: from the byte-order mark of the index; 0 is the primary."""

    size: int
    offset: int


def build_mpf(*, primary_size: int, second_size: int, mark_position: int) -> bytes:
    """The payload behind "MPF\\0" for two pictures, the second right behind the first.

    mark_position: offset in the file of this payload's first byte, the byte-order mark.
    """
    header = struct.pack(">2sHI", b"MM", 42, 8)
    entries_at = len(header) + 2 + 3 * 12 + 4
    directory = struct.pack(">H", 3)
    directory += struct.pack(">HHI4s", _VERSION, _UNDEFINED, 4, b"0100")
    directory += struct.pack(">HHII", _COUNT, _LONG, 1, 2)
    directory += struct.pack(">HHII", _ENTRIES, _UNDEFINED, 32, entries_at)
    directory += struct.pack(">I", 0)
    first = struct.pack(">IIIHH", _PRIMARY_ATTRIBUTE, primary_size, 0, 0, 0)
    second = struct.pack(">IIIHH", 0, second_size, primary_size - mark_position, 0, 0)
    return header + directory + first + second


def read_mpf(payload: bytes) -> list[Picture]:
    """The pictures listed in a payload behind "MPF\\0".

    Raises:
        ImageReadError: the index is damaged.
    """
    try:
        order = {b"MM\0*": ">", b"II*\0": "<"}[payload[:4]]
        (directory,) = struct.unpack_from(f"{order}I", payload, 4)
        (fields,) = struct.unpack_from(f"{order}H", payload, directory)
        for index in range(min(fields, 64)):
            tag, _, size, offset = struct.unpack_from(f"{order}HHII", payload, directory + 2 + 12 * index)
            if tag == _ENTRIES:
                return _read_entries(payload, order, offset, min(size // 16, _MAX_PICTURES))
    except (KeyError, struct.error) as error:
        raise ImageReadError(f"MPF index: damaged ({error!r})") from error
    raise ImageReadError("MPF index: no picture list")


def _read_entries(payload: bytes, order: str, offset: int, count: int) -> list[Picture]:
    entries = (struct.unpack_from(f"{order}IIIHH", payload, offset + 16 * index) for index in range(count))
    return [Picture(size=entry[1], offset=entry[2]) for entry in entries]
