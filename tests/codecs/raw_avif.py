"""Puts AVIF files together from tiles, which no library at hand writes."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from gm_core.codecs.iso_boxes import read_boxes, write_box


def grid_avif(tiles: Sequence[bytes], *, columns: int, width: int, height: int, extra: bytes = b"") -> bytes:
    """A file whose picture is a grid of the pictures of these files, all of one size and coding.

    extra: more property boxes of the grid.
    """
    parts = [dict(read_boxes(tile)) for tile in tiles]
    first = dict(read_boxes(parts[0][b"meta"][4:]))
    properties = dict(read_boxes(first[b"iprp"]))
    kinds = [box.kind for box in read_boxes(properties[b"ipco"])]
    size = write_box(b"ispe", struct.pack(">III", 0, width, height))
    added = range(len(kinds) + 1, len(kinds) + 2 + len(list(read_boxes(extra))))
    of_grid = bytes([*(i + 1 for i, kind in enumerate(kinds) if kind in (b"colr", b"pixi")), *added])
    of_tile = properties[b"ipma"][11:]
    count, grid = len(tiles), len(tiles) + 1
    links = b"".join(struct.pack(">HB", i + 1, len(of_tile)) + of_tile for i in range(count))
    links += struct.pack(">HB", grid, len(of_grid)) + of_grid
    index = {
        b"hdlr": first[b"hdlr"],
        b"pitm": bytes(4) + struct.pack(">H", grid),
        b"iloc": b"",
        b"iinf": bytes(4)
        + struct.pack(">H", grid)
        + b"".join(map(_entry, range(1, grid + 1), [*tiles, b""])),
        b"iref": bytes(4) + write_box(b"dimg", struct.pack(f">HH{count}H", grid, count, *range(1, grid))),
        b"iprp": write_box(b"ipco", properties[b"ipco"] + size + extra)
        + write_box(b"ipma", bytes(4) + struct.pack(">I", grid) + links),
        b"idat": struct.pack(">BBBBHH", 0, 0, count // columns - 1, columns - 1, width, height),
    }
    kind = write_box(b"ftyp", parts[0][b"ftyp"])
    pixels = [part[b"mdat"] for part in parts]
    start = len(kind) + len(_meta(index | {b"iloc": _locations(0, pixels)})) + 8
    meta = _meta(index | {b"iloc": _locations(start, pixels)})
    return kind + meta + write_box(b"mdat", b"".join(pixels))


def _entry(number: int, tile: bytes) -> bytes:
    return write_box(b"infe", b"\2\0\0\0" + struct.pack(">HH4sx", number, 0, b"av01" if tile else b"grid"))


def _locations(start: int, pixels: Sequence[bytes]) -> bytes:
    """Tiles in the file from `start` on, the grid's description in the index."""
    table = b"\1\0\0\0" + struct.pack(">HH", 0x4400, len(pixels) + 1)
    for number, data in enumerate(pixels, 1):
        table += struct.pack(">HHHHII", number, 0, 0, 1, start, len(data))
        start += len(data)
    return table + struct.pack(">HHHHII", len(pixels) + 1, 1, 0, 1, 0, 8)


def _meta(index: dict[bytes, bytes]) -> bytes:
    return write_box(b"meta", bytes(4) + b"".join(write_box(*box) for box in index.items()))
