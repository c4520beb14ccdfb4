"""Boxes, of which AVIF, JPEG XL and MP4 files consist (ISO/IEC 14496-12)."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

FULL_BOX = 4
"""Bytes of version and flags with which the payload of some kinds of boxes starts."""


class Box(NamedTuple):
    """Four letters, and what is behind them."""

    kind: bytes
    payload: bytes


def read_boxes(data: bytes, *, cut: bool = False) -> Iterator[Box]:
    """The boxes of a file or of a payload, in order; stops at a damaged or incomplete one.

    cut: give an incomplete box too, with what there is of it.
    """
    position = 0
    while position + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, position)
        header = 8
        if size == 0:
            size = len(data) - position
        elif size == 1 and position + 16 <= len(data):
            size, header = struct.unpack_from(">Q", data, position + 8)[0], 16
        if size < header or (position + size > len(data) and not cut):
            return
        yield Box(kind, data[position + header : position + size])
        position += size


def is_cut(path: str | os.PathLike[str]) -> bool:
    """Whether a file ends before its last box does. Reads the heads of the boxes alone."""
    end, position = os.path.getsize(path), 0
    with open(path, "rb") as file:
        while position + 8 <= end:
            file.seek(position)
            head = file.read(16).ljust(16, b"\0")
            size = int.from_bytes(head[:4], "big")
            size = int.from_bytes(head[8:], "big") if size == 1 else size
            if size < 8:
                return False
            position += size
    return position > end


def write_box(kind: bytes, payload: bytes) -> bytes:
    """The bytes of a box."""
    return struct.pack(">I", len(payload) + 8) + kind + payload
