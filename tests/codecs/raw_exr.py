"""A minimal OpenEXR writer for layouts that the library's Python binding cannot write."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import numpy as np

_TYPES = {np.dtype(np.uint32): 0, np.dtype(np.float16): 1, np.dtype(np.float32): 2}


def attribute(name: str, kind: str, value: bytes) -> bytes:
    return name.encode() + b"\0" + kind.encode() + b"\0" + struct.pack("<i", len(value)) + value


def raw_exr(
    channels: Mapping[str, np.ndarray],
    width: int,
    height: int,
    *,
    flags: int = 0,
    extra: bytes = b"",
) -> bytes:
    """An uncompressed scan-line file; channels smaller than the picture are stored subsampled."""
    ordered = sorted(channels.items())
    steps = {name: -(-height // pixels.shape[0]) for name, pixels in ordered}
    listing = b"".join(
        name.encode() + b"\0" + struct.pack("<iB3xii", _TYPES[pixels.dtype], 0, steps[name], steps[name])
        for name, pixels in ordered
    )
    window = struct.pack("<4i", 0, 0, width - 1, height - 1)
    header = struct.pack("<II", 20000630, 2 | flags)
    header += attribute("channels", "chlist", listing + b"\0") + attribute(
        "compression", "compression", b"\0"
    )
    header += attribute("dataWindow", "box2i", window) + attribute("displayWindow", "box2i", window)
    header += attribute("lineOrder", "lineOrder", b"\0") + attribute(
        "pixelAspectRatio", "float", struct.pack("<f", 1)
    )
    header += attribute("screenWindowCenter", "v2f", bytes(8))
    header += attribute("screenWindowWidth", "float", struct.pack("<f", 1)) + extra + b"\0"
    offset, table, body = len(header) + 8 * height, b"", b""
    for y in range(height):
        rows = [pixels[y // steps[name]].tobytes() for name, pixels in ordered if y % steps[name] == 0]
        line = b"".join(rows)
        table += struct.pack("<Q", offset + len(body))
        body += struct.pack("<ii", y, len(line)) + line
    return header + table + body
