"""Reads Radiance .hdr in any of its run-length forms and eight orientations."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from ...errors import ImageReadError
from ..chromaticities import resolve_primaries, rgb_to_xyz_of
from ..image import HDRImage, check_ratio, check_size, reading
from .rgbe import from_rgbe
from .rle import MAX_WIDTH, MIN_WIDTH, decode_lines

_MAX_HEADER = 1 << 16
# A new-style line takes at least 8 bytes for 127 pixels; the old style may repeat a pixel 65536 times.
_PIXELS_PER_BYTE, _PIXELS_PER_BYTE_OLD = 16, 4096
# Radiance's own, which tools copy into the header of sRGB pictures, with three digits or, as Radiance, four.
_PRIMARIES_DIGITS = 0.0005
_DEFAULT_PRIMARIES = [0.640, 0.330, 0.290, 0.600, 0.150, 0.060, 0.333, 0.333]
# STDPRIMS in Radiance's src/common/color.h, of equal-energy white, between which and XYZ it converts.
_STANDARD_PRIMARIES = [*_DEFAULT_PRIMARIES[:6], 1 / 3, 1 / 3]
_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
_SIZE = re.compile(rb"([+-])([XY]) +(\d{1,9}) +([+-])([XY]) +(\d{1,9})[ \t\r]*\n")


def decode_radiance(data: bytes) -> HDRImage:
    """An RGBE or XYZE file in any of its run-length forms and eight orientations.

    EXPOSURE is reported in `metadata` but not divided out, as other readers do. XYZE becomes the RGBE picture
    that Radiance's ra_xyze makes it from. Primaries that are none of `gm_core.color.PRIMARIES` are converted
    to BT.2020.

    Raises:
        ImageReadError: no Radiance header, damaged, truncated or too large.
    """
    with reading("Radiance"):
        header, size, position = _read_header(data)
        lines, length = int(size[3]), int(size[6])
        check_size(length, lines, source="Radiance")
        new = data[position : position + 2] == b"\2\2" and MIN_WIDTH <= length <= MAX_WIDTH
        limit = _PIXELS_PER_BYTE if new else _PIXELS_PER_BYTE_OLD
        check_ratio(lines * length, len(data), limit, source="Radiance")
        rgbe = decode_lines(data, position, lines, length)
        picture = HDRImage(from_rgbe(_upright(rgbe, size)), metadata={**header, "format": "radiance"})
        _add_colour_space(picture, header)
        return picture


def _read_header(data: bytes) -> tuple[dict[str, str], re.Match[bytes], int]:
    """Variables, the resolution line, and where the pixels start."""
    if not data.startswith(b"#?"):
        raise ImageReadError("Radiance: the file does not start with #?")
    blank = _BLANK_LINE.search(data, 0, _MAX_HEADER)
    end = blank.start() if blank else -1
    size = _SIZE.match(data, blank.end()) if blank else None
    if size is None or size[2] == size[5]:
        raise ImageReadError(
            "Radiance: no resolution line behind the header; the file is truncated or damaged"
        )
    lines = data[:end].decode("latin-1").split("\n")[1:]
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    header = {name.strip(): value.strip() for name, value in pairs}
    if header.get("FORMAT", "32-bit_rle_rgbe") not in ("32-bit_rle_rgbe", "32-bit_rle_xyze"):
        raise ImageReadError(f"Radiance: FORMAT is {header['FORMAT']!r}; expected 32-bit_rle_rgbe or _xyze")
    return header, size, size.end()


def _upright(lines: np.ndarray, size: re.Match[bytes]) -> np.ndarray:
    """Lines in the order of the resolution line, turned to top row first, left column first."""
    first_sign, first_axis, _, second_sign = size[1], size[2], size[3], size[4]
    pixels = lines if first_axis == b"Y" else lines.swapaxes(0, 1)
    y_sign, x_sign = (first_sign, second_sign) if first_axis == b"Y" else (second_sign, first_sign)
    pixels = pixels[::-1] if y_sign == b"+" else pixels
    return pixels[:, ::-1] if x_sign == b"-" else pixels


def _add_colour_space(picture: HDRImage, header: Mapping[str, str]) -> None:
    if header.get("FORMAT") == "32-bit_rle_xyze":
        picture.hdr = picture.hdr @ np.linalg.inv(rgb_to_xyz_of(_STANDARD_PRIMARIES)).astype(np.float32).T
        return
    white = _numbers(header.get("WHITE_NITS", ""))
    if len(white) == 1 and 0 < white[0] <= 10000:
        picture.white_nits = white[0]
    chroma = _numbers(header.get("PRIMARIES", ""))
    if len(chroma) == 8 and not np.allclose(chroma, _DEFAULT_PRIMARIES, rtol=0, atol=_PRIMARIES_DIGITS):
        picture.primaries, matrix = resolve_primaries(chroma)
        if matrix is not None:
            picture.hdr = picture.hdr @ matrix.T


def _numbers(text: str) -> list[float]:
    try:
        return [float(word) for word in text.split()]
    except ValueError:
        return []
