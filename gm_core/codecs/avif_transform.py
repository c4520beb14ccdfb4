"""How an AVIF asks to be turned: properties `irot` and `imir` of its primary item (ISO/IEC 23008-12)."""

from __future__ import annotations

import struct

from .iso_boxes import FULL_BOX, read_boxes

# Quarter turns counterclockwise, and mirror axis -> Exif orientation that asks for the same.
_TURNS = {1: 8, 2: 3, 3: 6}
_MIRRORS = {0: 4, 1: 2}


def transforms(data: bytes) -> list[int]:
    """Exif orientations to apply one after the other; empty where the file asks for none or is damaged."""
    try:
        meta = dict(read_boxes(dict(read_boxes(data)).get(b"meta", b"")[FULL_BOX:]))
        properties = dict(read_boxes(meta.get(b"iprp", b"")))
        known = list(read_boxes(properties.get(b"ipco", b"")))
        linked = _linked(properties.get(b"ipma", b""), _primary(meta.get(b"pitm", b"")))
        chosen = [known[index - 1] for index in linked if 0 < index <= len(known)]
        steps = [_orientation(kind, payload[0]) for kind, payload in chosen if kind in (b"irot", b"imir")]
    except (struct.error, IndexError):
        return []
    return [step for step in steps if step != 1]


def _primary(payload: bytes) -> int:
    return struct.unpack_from(">I" if payload[0] else ">H", payload, FULL_BOX)[0]


def _linked(payload: bytes, item: int) -> list[int]:
    """Numbers of the properties of an item, counted from 1, in order."""
    wide_item, wide_index = payload[0] > 0, payload[3] & 1
    (count,) = struct.unpack_from(">I", payload, FULL_BOX)
    position = FULL_BOX + 4
    for _ in range(count):
        number, links = struct.unpack_from(">IB" if wide_item else ">HB", payload, position)
        position += 5 if wide_item else 3
        indices = struct.unpack_from(f">{links}{'H' if wide_index else 'B'}", payload, position)
        position += links * (2 if wide_index else 1)
        if number == item:
            return [index & (0x7FFF if wide_index else 0x7F) for index in indices]
    return []


def _orientation(kind: bytes, value: int) -> int:
    return _TURNS.get(value & 3, 1) if kind == b"irot" else _MIRRORS[value & 1]
