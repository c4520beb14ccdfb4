"""Adds to an AVIF what libavif's Python wrapping cannot: light levels, mastering display, Exif.

Handles the one layout libavif writes for a single picture (ISO/IEC 14496-12 and 23008-12): `meta` before
`mdat`, version 0 of iloc, iinf and ipma, one item.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from ..errors import ImageWriteError
from .signal import LightLevel, mastering_display

_PICTURE_ITEM, _EXIF_ITEM = 1, 2
_FULL_BOX = 4
_EXTENT = 14


class _Box(NamedTuple):
    kind: bytes
    payload: bytes


def add_metadata(data: bytes, level: LightLevel, exif: bytes | None) -> bytes:
    """The file with `clli` and `mdcv` properties and, where given, an Exif item.

    exif: a block as Pillow's `Exif.tobytes()` gives it.

    Raises:
        ImageWriteError: the file has another layout than libavif is known to write.
    """
    boxes = _split(data)
    if [box.kind for box in boxes] != [b"ftyp", b"meta", b"mdat"]:
        raise ImageWriteError("AVIF: the encoder wrote an unknown layout; update imagecodecs and report this")
    tiff = b"" if exif is None else bytes(4) + exif.removeprefix(b"Exif\0\0")
    old = boxes[1].payload
    # Offsets in the index depend on the size of the index, which does not depend on them.
    size = len(_meta(old, level, shift=0, exif_at=0, exif_length=len(tiff)))
    shift = size - len(old)
    exif_at = len(data) + shift + 8
    meta = _meta(old, level, shift=shift, exif_at=exif_at, exif_length=len(tiff))
    parts = [_box(b"ftyp", boxes[0].payload), _box(b"meta", meta), _box(b"mdat", boxes[2].payload)]
    return b"".join([*parts, _box(b"mdat", tiff) if tiff else b""])


def _meta(payload: bytes, level: LightLevel, *, shift: int, exif_at: int, exif_length: int) -> bytes:
    children = _split(payload[_FULL_BOX:])
    if [box.kind for box in children] != [b"hdlr", b"pitm", b"iloc", b"iinf", b"iprp"]:
        raise ImageWriteError("AVIF: the encoder wrote an unknown index; update imagecodecs and report this")
    handler, primary, locations, items, properties = (box.payload for box in children)
    parts = [_box(b"hdlr", handler), _box(b"pitm", primary)]
    parts.append(_box(b"iloc", _locations(locations, shift, exif_at, exif_length)))
    parts.append(_box(b"iinf", _items(items) if exif_length else items))
    if exif_length:
        reference = struct.pack(">HHH", _EXIF_ITEM, 1, _PICTURE_ITEM)
        parts.append(_box(b"iref", bytes(_FULL_BOX) + _box(b"cdsc", reference)))
    parts.append(_box(b"iprp", _properties(properties, level)))
    return payload[:_FULL_BOX] + b"".join(parts)


def _locations(payload: bytes, shift: int, exif_at: int, exif_length: int) -> bytes:
    sizes, count, item, _, extents = struct.unpack_from(">4xHHHHH", payload)
    if (payload[0], sizes, count, item, extents) != (0, 0x4400, 1, _PICTURE_ITEM, 1):
        raise ImageWriteError(
            "AVIF: the encoder wrote an unknown item table; update imagecodecs and report this"
        )
    offset, length = struct.unpack_from(">II", payload, _EXTENT)
    table = struct.pack(">HHHII", item, 0, 1, offset + shift, length)
    if exif_length:
        table += struct.pack(">HHHII", _EXIF_ITEM, 0, 1, exif_at, exif_length)
    return bytes(_FULL_BOX) + struct.pack(">HH", sizes, 2 if exif_length else 1) + table


def _items(payload: bytes) -> bytes:
    (count,) = struct.unpack_from(">H", payload, _FULL_BOX)
    entry = b"\2\0\0\1" + struct.pack(">HH4s", _EXIF_ITEM, 0, b"Exif") + b"\0"
    return (
        payload[:_FULL_BOX] + struct.pack(">H", count + 1) + payload[_FULL_BOX + 2 :] + _box(b"infe", entry)
    )


def _properties(payload: bytes, level: LightLevel) -> bytes:
    """Two more properties, associated with the picture, none of them essential."""
    container, associations = (box.payload for box in _split(payload))
    first = len(_split(container)) + 1
    light = struct.pack(">HH", min(round(level.max_cll), 65535), min(round(level.average), 65535))
    mastering = mastering_display(("green", "blue", "red"))
    container += _box(b"clli", light) + _box(b"mdcv", mastering)
    count, item, linked = struct.unpack_from(">IHB", associations, _FULL_BOX)
    if (associations[:_FULL_BOX], count, item) != (bytes(_FULL_BOX), 1, _PICTURE_ITEM):
        raise ImageWriteError(
            "AVIF: the encoder wrote unknown associations; update imagecodecs and report this"
        )
    links = associations[_FULL_BOX + 7 :] + bytes((first, first + 1))
    head = bytes(_FULL_BOX) + struct.pack(">IHB", count, item, linked + 2)
    return _box(b"ipco", container) + _box(b"ipma", head + links)


def _box(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload) + 8) + kind + payload


def _split(data: bytes) -> list[_Box]:
    boxes, position = [], 0
    while position + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, position)
        if size < 8 or position + size > len(data):
            raise ImageWriteError("AVIF: the encoder wrote a damaged box; update imagecodecs and report this")
        boxes.append(_Box(kind, data[position + 8 : position + size]))
        position += size
    return boxes
