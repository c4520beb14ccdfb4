"""Writes lossless float JPEG XL, through imagecodecs."""

from __future__ import annotations

import numpy as np

from ...color import rgb_to_rgb
from ...errors import ImageWriteError
from ..image import check_hdr
from ..libraries import library


def encode_jxl(hdr: np.ndarray, *, primaries: str = "bt709", effort: int = 4) -> bytes:
    """A lossless float JPEG XL, linear BT.709: the library cannot tag any other colour space.

    hdr: [H,W,3] linear light in `primaries`, 1.0 = SDR white. effort: 1 (fast) to 9 (small).

    Raises:
        ImageWriteError: wrong shape, non-finite pixels, an option out of range, or imagecodecs is missing.
    """
    imagecodecs = library("imagecodecs", "writing .jxl", ImageWriteError)
    if not 1 <= effort <= 9:
        raise ImageWriteError(f"effort is {effort}; expected 1 to 9")
    picture = check_hdr(hdr)
    if primaries != "bt709":
        picture = picture @ rgb_to_rgb(primaries, "bt709").numpy().astype(np.float32).T
    return imagecodecs.jpegxl_encode(picture, lossless=True, effort=effort)
