"""Writes PNG with 16 bits a channel (W3C PNG third edition), which Pillow cannot."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

import numpy as np

from ...errors import ImageWriteError
from ..image import check_hdr, row_blocks
from ..signal import BT2020, IDENTITY, NIT_UNIT, PQ, light_level, mastering_display, pq_codes

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES = {1: 0, 3: 2}
_LEVEL = 4

Chunks = Iterable[tuple[bytes, bytes]]


def encode_png_pq(
    hdr: np.ndarray,
    *,
    primaries: str = "bt709",
    white_nits: float = 203.0,
    text: Mapping[str, str] = MappingProxyType({}),
) -> bytes:
    """A 16-bit PNG in BT.2020 with the PQ curve, tagged with cICP, mDCV and cLLI.

    hdr: [H,W,3] linear light in `primaries`, 1.0 = `white_nits`; clipped to 0 to 10000 nits.
    text: keyword -> text, for example prompt and workflow.

    Raises:
        ImageWriteError: wrong shape, non-finite pixels, or a text keyword that PNG does not allow.
    """
    picture = check_hdr(hdr)
    codes = pq_codes(picture, primaries=primaries, white_nits=white_nits)
    level = light_level(picture, primaries=primaries, white_nits=white_nits)
    chunks = [
        (b"cICP", bytes((BT2020, PQ, IDENTITY, 1))),
        (b"mDCV", mastering_display(("red", "green", "blue"))),
        (b"cLLI", struct.pack(">II", round(level.max_cll / NIT_UNIT), round(level.average / NIT_UNIT))),
    ]
    return encode_png16(codes, chunks=chunks, text=text)


def encode_png16(
    pixels: np.ndarray, *, chunks: Chunks = (), text: Mapping[str, str] = MappingProxyType({})
) -> bytes:
    """A 16-bit grey or RGB PNG.

    pixels: [H,W,1|3], float in [0,1] (clipped and rounded) or uint16 codes.
    chunks: ancillary (type, data) that stand before the pixels. text: keyword -> text.

    Raises:
        ImageWriteError: wrong shape, NaN, or a text keyword that PNG does not allow.
    """
    if pixels.ndim != 3 or pixels.shape[2] not in _COLOUR_TYPES or not pixels.size:
        raise ImageWriteError(f"pixels have shape {pixels.shape}; expected (height, width, 1 or 3)")
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, _COLOUR_TYPES[channels], 0, 0, 0)
    parts = [SIGNATURE, _chunk(b"IHDR", header)]
    parts += [_chunk(kind, data) for kind, data in chunks]
    parts += [_text_chunk(keyword, value) for keyword, value in text.items()]
    parts += [_chunk(b"IDAT", data) for data in _compressed(pixels)]
    return b"".join([*parts, _chunk(b"IEND", b"")])


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def is_keyword(name: str) -> bool:
    """Whether a PNG text of that name can be written: 1 to 79 printable ASCII characters."""
    return 0 < len(name) < 80 and name.isascii() and name.isprintable()


def _text_chunk(keyword: str, text: str) -> bytes:
    if not is_keyword(keyword):
        raise ImageWriteError(f"{keyword!r} cannot be a PNG text keyword: 1 to 79 printable ASCII characters")
    if text.isascii():
        return _chunk(b"tEXt", keyword.encode() + b"\0" + text.encode())
    return _chunk(b"iTXt", keyword.encode() + b"\0\0\0\0\0" + text.encode())


def _compressed(pixels: np.ndarray) -> Iterator[bytes]:
    """The filtered and deflated rows, block by block. Each byte is coded as its difference to the pixel on
    the left (filter 1), which on 16-bit pictures packs as well as choosing a filter for every row."""
    packer = zlib.compressobj(_LEVEL)
    step = 2 * pixels.shape[2]
    for rows in row_blocks(*pixels.shape[:2]):
        lines = _codes(pixels[rows]).astype(">u2").view(np.uint8).reshape(rows.stop - rows.start, -1)
        coded = np.empty((len(lines), 1 + lines.shape[1]), np.uint8)
        coded[:, 0] = 1
        coded[:, 1 : 1 + step] = lines[:, :step]
        np.subtract(lines[:, step:], lines[:, :-step], out=coded[:, 1 + step :])
        if data := packer.compress(coded.tobytes()):
            yield data
    yield packer.flush()


def _codes(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype == np.uint16:
        return np.ascontiguousarray(pixels)
    if np.isnan(pixels).any():
        raise ImageWriteError("the picture contains NaN; call sanitize() first")
    return (np.clip(pixels, 0, 1).astype(np.float64) * 65535 + 0.5).astype(np.uint16)
