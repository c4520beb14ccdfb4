"""What an AVIF says about its pictures: items, properties, how they belong together (ISO/IEC 23008-12)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from ...errors import ImageReadError
from ..iso_boxes import FULL_BOX, Box, read_boxes

# Quarter turns counterclockwise, and mirror axis -> Exif orientation that asks for the same.
_TURNS = {1: 8, 2: 3, 3: 6}
_MIRRORS = {0: 4, 1: 2}
_ALPHA = b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha"
_MAX_TILES = 256


class Grid(NamedTuple):
    """A picture put together from tiles, row by row, `columns` in each row, cut to width x height."""

    tiles: list[int]
    columns: int
    width: int
    height: int


@dataclass(frozen=True)
class Items:
    """The pictures of a file by their numbers. kinds: four letters. properties: in the order they count.
    links: (four letters, from, to). payloads: bytes of items that are kept in the index itself."""

    primary: int
    kinds: dict[int, bytes]
    properties: dict[int, list[Box]]
    links: list[tuple[bytes, int, list[int]]]
    payloads: dict[int, bytes]

    def property(self, item: int, kind: bytes) -> bytes | None:
        """The first property of this kind."""
        return next((box.payload for box in self.properties.get(item, []) if box.kind == kind), None)

    def colours(self, item: int) -> dict[bytes, bytes]:
        """The colour properties: by kind, "nclx" or a profile's, what follows it."""
        boxes = (box.payload for box in self.properties.get(item, []) if box.kind == b"colr")
        return {payload[:4]: payload[4:] for payload in boxes}

    def alpha(self) -> int | None:
        """The item that holds the primary picture's transparency."""
        for kind, source, targets in self.links:
            named = (self.property(source, b"auxC") or b"")[FULL_BOX:].startswith(_ALPHA)
            if kind == b"auxl" and self.primary in targets and named:
                return source
        return None

    def is_premultiplied(self) -> bool:
        """Whether the primary picture's colours are multiplied by its transparency."""
        alpha = self.alpha()
        return any(link[:2] == (b"prem", self.primary) and alpha in link[2] for link in self.links)

    def grid(self, item: int) -> Grid | None:
        """How the item is put together from tiles; None where it is not.

        Raises:
            ImageReadError: it is, but its description is damaged.
        """
        if self.kinds.get(item) != b"grid":
            return None
        payload = self.payloads.get(item, b"")
        try:
            wide, rows, columns = payload[1] & 1, payload[2] + 1, payload[3] + 1
            width, height = struct.unpack_from(">II" if wide else ">HH", payload, 4)
        except (struct.error, IndexError) as error:
            raise ImageReadError(f"its grid of tiles is damaged ({error})") from error
        tiles = [tile for kind, source, to in self.links if (kind, source) == (b"dimg", item) for tile in to]
        if len(tiles) != rows * columns or len(tiles) > _MAX_TILES:
            raise ImageReadError(f"its grid of {columns} x {rows} tiles lists {len(tiles)}; it is damaged")
        return Grid(tiles, columns, width, height)


def read_items(data: bytes) -> Items | None:
    """The items of a file; None where it has none, as a sequence, or the index is damaged."""
    try:
        meta = dict(read_boxes(dict(read_boxes(data)).get(b"meta", b"")[FULL_BOX:]))
        return Items(
            _primary(meta[b"pitm"]),
            _kinds(meta[b"iinf"]),
            _properties(dict(read_boxes(meta[b"iprp"]))),
            list(_links(meta.get(b"iref", bytes(FULL_BOX)))),
            _payloads(data, meta),
        )
    except (struct.error, IndexError, KeyError):
        return None


def orientation(box: Box) -> int:
    """The Exif orientation that asks for the same as `irot` or `imir`; 1 for other properties."""
    if box.kind == b"irot" and box.payload:
        return _TURNS.get(box.payload[0] & 3, 1)
    return _MIRRORS[box.payload[0] & 1] if box.kind == b"imir" and box.payload else 1


def clean_aperture(payload: bytes, width: int, height: int) -> tuple[slice, slice]:
    """Rows and columns that a `clap` property keeps of a picture of this size.

    Raises:
        ImageReadError: it names no whole pixels, or some outside the picture.
    """
    try:
        numbers = struct.unpack_from(">IIIIiIiI", payload)
        wide, high, right, down = (Fraction(*numbers[index : index + 2]) for index in (0, 2, 4, 6))
    except (struct.error, ZeroDivisionError) as error:
        raise ImageReadError(f"its clean aperture is damaged ({error})") from error
    left, top = (width - wide) / 2 + right, (height - high) / 2 + down
    edges = (left, top, left + wide, top + high)
    inside = 0 <= left < edges[2] <= width and 0 <= top < edges[3] <= height
    if not inside or any(edge.denominator != 1 for edge in edges):
        raise ImageReadError("its clean aperture does not lie on pixels of the picture; the file is damaged")
    return slice(int(top), int(edges[3])), slice(int(left), int(edges[2]))


def _primary(payload: bytes) -> int:
    return struct.unpack_from(">I" if payload[0] else ">H", payload, FULL_BOX)[0]


def _kinds(payload: bytes) -> dict[int, bytes]:
    kinds = {}
    for box in read_boxes(payload[FULL_BOX + (4 if payload[0] else 2) :]):
        layout = ">I2x4s" if box.payload[0] > 2 else ">H2x4s"
        number, kind = struct.unpack_from(layout, box.payload, FULL_BOX)
        kinds[number] = kind
    return kinds


def _properties(boxes: dict[bytes, bytes]) -> dict[int, list[Box]]:
    known, payload = list(read_boxes(boxes[b"ipco"])), boxes[b"ipma"]
    wide_item, wide_index = payload[0] > 0, payload[3] & 1
    (count,) = struct.unpack_from(">I", payload, FULL_BOX)
    position, found = FULL_BOX + 4, {}
    for _ in range(count):
        number, links = struct.unpack_from(">IB" if wide_item else ">HB", payload, position)
        position += 5 if wide_item else 3
        indices = struct.unpack_from(f">{links}{'H' if wide_index else 'B'}", payload, position)
        position += links * (2 if wide_index else 1)
        chosen = [index & (0x7FFF if wide_index else 0x7F) for index in indices]
        found[number] = [known[index - 1] for index in chosen if 0 < index <= len(known)]
    return found


def _links(payload: bytes) -> Iterator[tuple[bytes, int, list[int]]]:
    letter = "I" if payload[0] else "H"
    for box in read_boxes(payload[FULL_BOX:]):
        source, count = struct.unpack_from(f">{letter}H", box.payload)
        first = struct.calcsize(f">{letter}H")
        yield box.kind, source, list(struct.unpack_from(f">{count}{letter}", box.payload, first))


def _payloads(data: bytes, meta: dict[bytes, bytes]) -> dict[int, bytes]:
    """The first bytes of every item, enough for the description of a grid."""
    payload, version = meta[b"iloc"], meta[b"iloc"][0]
    sizes = struct.unpack_from(">BB", payload, FULL_BOX)
    offset_size, length_size, base_size, index_size = (n >> shift & 15 for n in sizes for shift in (4, 0))
    index_size = index_size if version else 0
    wide = "I" if version == 2 else "H"
    (count,) = struct.unpack_from(f">{wide}", payload, FULL_BOX + 2)
    reader = _Numbers(payload, FULL_BOX + 2 + struct.calcsize(wide))
    found = {}
    for _ in range(count):
        number = reader.take(struct.calcsize(wide))
        inside = reader.take(2) & 15 == 1 if version else False
        reader.take(2)
        base, extents = reader.take(base_size), reader.take(2)
        if extents:
            reader.take(index_size)
            start, length = base + reader.take(offset_size), reader.take(length_size)
            source = meta.get(b"idat", b"") if inside else data
            found[number] = source[start : start + min(length, 16)]
            reader.take((extents - 1) * (index_size + offset_size + length_size))
    return found


class _Numbers:
    """Big-endian numbers one after the other.

    Raises:
        IndexError: they reach beyond the data.
    """

    def __init__(self, data: bytes, position: int) -> None:
        self.data, self.position = data, position

    def take(self, size: int) -> int:
        end = self.position + size
        if end > len(self.data):
            raise IndexError("the item locations are cut off")
        value = int.from_bytes(self.data[self.position : end], "big")
        self.position = end
        return value
