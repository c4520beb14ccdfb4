"""Writes Radiance .hdr (RGBE), run-length coded."""

from __future__ import annotations

import numpy as np

from ...color import PRIMARIES
from ..image import check_choice, check_hdr, check_white, row_blocks
from .rgbe import to_rgbe
from .rle import MAX_WIDTH, MIN_WIDTH, encode_lines


def encode_radiance(hdr: np.ndarray, *, primaries: str = "bt709", white_nits: float = 203.0) -> bytes:
    """A run-length coded RGBE file.

    hdr: [H,W,3] linear light in `primaries`, 1.0 = SDR white; negative values become 0, since RGBE has no
        sign. Mantissas are rounded, not truncated: the error is at most 1/256 of the pixel's largest
        channel, half of what common writers leave.

    Raises:
        ImageWriteError: wrong shape, non-finite pixels, or unknown primaries.
    """
    check_choice(primaries, PRIMARIES, what="primaries")
    check_white(white_nits)
    picture = check_hdr(hdr)
    height, width = picture.shape[:2]
    xy = " ".join(f"{value:g}" for point in PRIMARIES[primaries] for value in point)
    header = (
        "#?RADIANCE\nSOFTWARE=GM-HDR\nFORMAT=32-bit_rle_rgbe\n"
        f"PRIMARIES={xy}\nEXPOSURE=1\nWHITE_NITS={white_nits:g}\n\n-Y {height} +X {width}\n"
    )
    packed = MIN_WIDTH <= width <= MAX_WIDTH
    parts = [header.encode("ascii")]
    for rows in row_blocks(height, width):
        rgbe = to_rgbe(picture[rows])
        parts.append(encode_lines(rgbe) if packed else rgbe.tobytes())
    return b"".join(parts)
