"""16-bit PNG with text entries (PNG Specification, third edition), which Pillow cannot write in colour."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

import numpy as np

from ..gm_core.errors import ImageWriteError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOUR_TYPES = {1: 0, 3: 2}
FILTER_UP = 2
COMPRESSION = 3


def encode_png16(picture: np.ndarray, text: Mapping[str, str]) -> bytes:
    """[H,W,1|3] in [0,1] -> PNG with 16 bits per channel, rounded to nearest.

    Args:
        picture: clipped to [0,1].
        text: ASCII entries by keyword.

    Raises:
        ImageWriteError: wrong shape, or NaN inside.
    """
    if picture.ndim != 3 or picture.shape[2] not in COLOUR_TYPES or picture.size == 0:
        raise ImageWriteError(f"picture is {picture.shape}; expected (height, width, 1 or 3)")
    if np.isnan(picture).any():
        raise ImageWriteError("picture contains NaN; replace it before saving")
    height, width, channels = picture.shape
    header = struct.pack(">IIBBBBB", width, height, 16, COLOUR_TYPES[channels], 0, 0, 0)
    entries = (
        chunk(b"tEXt", key.encode("ascii") + b"\0" + value.encode("ascii")) for key, value in text.items()
    )
    data = zlib.compress(filtered_rows(picture), COMPRESSION)
    return b"".join((SIGNATURE, chunk(b"IHDR", header), *entries, chunk(b"IDAT", data), chunk(b"IEND", b"")))


def filtered_rows(picture: np.ndarray) -> bytes:
    """Big-endian rows, each as its difference to the row above."""
    codes = np.rint(np.clip(picture, 0.0, 1.0) * 65535.0).astype(">u2")
    rows = codes.reshape(len(codes), -1).view(np.uint8)
    filtered = np.empty((len(rows), rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = FILTER_UP
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    return filtered.tobytes()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
