"""Boxes, of which AVIF and JPEG XL files consist (ISO/IEC 14496-12)."""

from __future__ import annotations

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


def write_box(kind: bytes, payload: bytes) -> bytes:
    """The bytes of a box."""
    return struct.pack(">I", len(payload) + 8) + kind + payload
