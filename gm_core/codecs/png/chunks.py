"""The chunks of a PNG (W3C PNG third edition, 5.3)."""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from PIL import PngImagePlugin

from ...errors import ImageReadError
from .write import SIGNATURE

logger = logging.getLogger(__name__)

_MAX_PROFILE = 1 << 24
_PIXELS = (b"IHDR", b"tRNS", b"IDAT", b"IEND")
_COMPRESSED = (b"zTXt", b"iTXt", b"iCCP")


class Chunk(NamedTuple):
    """start, end: where the chunk lies in the file, with its length and check sum."""

    kind: bytes
    start: int
    end: int

    def body(self, data: bytes) -> bytes:
        """What it holds, of the file `data`."""
        return data[self.start + 8 : self.end - 4]


def chunks_before_pixels(data: bytes) -> dict[bytes, bytes]:
    """The chunks before the pixels, by type; of several of one type the first.

    Raises:
        ImageReadError: one is damaged, or there is no header.
    """
    found: dict[bytes, bytes] = {}
    for chunk in _chunks(data):
        if chunk.kind == b"IDAT":
            break
        body = chunk.body(data)
        if data[chunk.end - 4 : chunk.end] != zlib.crc32(chunk.kind + body).to_bytes(4, "big"):
            raise ImageReadError(f"PNG: chunk {chunk.kind!r} at byte {chunk.start} is truncated or damaged")
        found.setdefault(chunk.kind, body)
    if len(found.get(b"IHDR", b"")) != 13:
        raise ImageReadError("PNG: no header chunk")
    return found


def without_oversized(data: bytes) -> bytes:
    """The file without the compressed texts and profiles for whose size Pillow refuses the whole picture."""
    parts, kept = [], 0
    for chunk in _chunks(data):
        if chunk.kind in _COMPRESSED and _is_oversized(_compressed(chunk.kind, chunk.body(data))):
            parts.append(data[kept : chunk.start])
            kept = chunk.end
            if chunk.kind != b"iCCP":
                name = chunk.body(data).partition(b"\0")[0].decode("latin-1")
                logger.warning("PNG: its text %r is too long and left out", name)
    return b"".join([*parts, data[kept:]]) if parts else data


def pixels_alone(data: bytes) -> bytes:
    """The file without what FFmpeg might stumble over, such as a damaged profile: its pixels and no more."""
    return SIGNATURE + b"".join(
        data[chunk.start : chunk.end] for chunk in _chunks(data) if chunk.kind in _PIXELS
    )


def _is_oversized(packed: bytes) -> bool:
    inflater = zlib.decompressobj()
    try:
        inflater.decompress(packed, PngImagePlugin.MAX_TEXT_CHUNK)
    except zlib.error:
        return False
    return bool(inflater.unconsumed_tail)


def profile_in(chunks: dict[bytes, bytes]) -> bytes:
    """The ICC profile, empty where there is none, or where it is damaged or beyond all reason."""
    inflater = zlib.decompressobj()
    try:
        profile = inflater.decompress(chunks.get(b"iCCP", b"").partition(b"\0")[2][1:], _MAX_PROFILE)
    except zlib.error:
        return b""
    return b"" if inflater.unconsumed_tail else profile


def _chunks(data: bytes) -> Iterator[Chunk]:
    position = len(SIGNATURE)
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        yield Chunk(kind, position, end)
        position = end


def _compressed(kind: bytes, body: bytes) -> bytes:
    """The deflated part of a text or profile; empty for what is not compressed."""
    rest = body.partition(b"\0")[2]
    if kind != b"iTXt":
        return rest[1:]
    return rest[2:].partition(b"\0")[2].partition(b"\0")[2] if rest[:1] == b"\1" else b""
