"""Adds to an AVIF what libavif's Python wrapping cannot: light levels, mastering display, Exif.

Handles the one layout libavif writes for a single picture (ISO/IEC 14496-12 and 23008-12): `meta` before
`mdat`, version 0 of iloc, iinf and ipma, one item.
"""

from __future__ import annotations

import struct

from ...errors import ImageWriteError
from ..iso_boxes import FULL_BOX, read_boxes, write_box
from ..signal import LightLevel, mastering_display

_PICTURE_ITEM, _EXIF_ITEM = 1, 2
_EXTENT = 14


def add_metadata(data: bytes, level: LightLevel, exif: bytes | None) -> bytes:
    """The file with `clli` and `mdcv` properties and, where given, an Exif item.

    exif: a block as Pillow's `Exif.tobytes()` gives it.

    Raises:
        ImageWriteError: the file has another layout than libavif is known to write.
    """
    boxes = list(read_boxes(data))
    if [box.kind for box in boxes] != [b"ftyp", b"meta", b"mdat"]:
        raise ImageWriteError("AVIF: the encoder wrote an unknown layout; update imagecodecs and report this")
    tiff = b"" if exif is None else bytes(4) + exif.removeprefix(b"Exif\0\0")
    old = boxes[1].payload
    # Offsets in the index depend on the size of the index, which does not depend on them.
    size = len(_meta(old, level, shift=0, exif_at=0, exif_length=len(tiff)))
    shift = size - len(old)
    exif_at = len(data) + shift + 8
    meta = _meta(old, level, shift=shift, exif_at=exif_at, exif_length=len(tiff))
    parts = [
        write_box(b"ftyp", boxes[0].payload),
        write_box(b"meta", meta),
        write_box(b"mdat", boxes[2].payload),
    ]
    return b"".join([*parts, write_box(b"mdat", tiff) if tiff else b""])


def _meta(payload: bytes, level: LightLevel, *, shift: int, exif_at: int, exif_length: int) -> bytes:
    children = list(read_boxes(payload[FULL_BOX:]))
    if [box.kind for box in children] != [b"hdlr", b"pitm", b"iloc", b"iinf", b"iprp"]:
        raise ImageWriteError("AVIF: the encoder wrote an unknown index; update imagecodecs and report this")
    handler, primary, locations, items, properties = (box.payload for box in children)
    parts = [write_box(b"hdlr", handler), write_box(b"pitm", primary)]
    parts.append(write_box(b"iloc", _locations(locations, shift, exif_at, exif_length)))
    parts.append(write_box(b"iinf", _items(items) if exif_length else items))
    if exif_length:
        reference = struct.pack(">HHH", _EXIF_ITEM, 1, _PICTURE_ITEM)
        parts.append(write_box(b"iref", bytes(FULL_BOX) + write_box(b"cdsc", reference)))
    parts.append(write_box(b"iprp", _properties(properties, level)))
    return payload[:FULL_BOX] + b"".join(parts)


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
    return bytes(FULL_BOX) + struct.pack(">HH", sizes, 2 if exif_length else 1) + table


def _items(payload: bytes) -> bytes:
    (count,) = struct.unpack_from(">H", payload, FULL_BOX)
    entry = b"\2\0\0\1" + struct.pack(">HH4s", _EXIF_ITEM, 0, b"Exif") + b"\0"
    return (
        payload[:FULL_BOX]
        + struct.pack(">H", count + 1)
        + payload[FULL_BOX + 2 :]
        + write_box(b"infe", entry)
    )


def _properties(payload: bytes, level: LightLevel) -> bytes:
    """Two more properties, associated with the picture, none of them essential."""
    container, associations = (box.payload for box in read_boxes(payload))
    first = len(list(read_boxes(container))) + 1
    light = struct.pack(">HH", min(round(level.max_cll), 65535), min(round(level.average), 65535))
    mastering = mastering_display(("green", "blue", "red"))
    container += write_box(b"clli", light) + write_box(b"mdcv", mastering)
    count, item, linked = struct.unpack_from(">IHB", associations, FULL_BOX)
    if (associations[:FULL_BOX], count, item) != (bytes(FULL_BOX), 1, _PICTURE_ITEM):
        raise ImageWriteError(
            "AVIF: the encoder wrote unknown associations; update imagecodecs and report this"
        )
    links = associations[FULL_BOX + 7 :] + bytes((first, first + 1))
    head = bytes(FULL_BOX) + struct.pack(">IHB", count, item, linked + 2)
    return write_box(b"ipco", container) + write_box(b"ipma", head + links)
