"""Writes AVIF with 10 or 12 bits in PQ and BT.2020, full chroma."""

from __future__ import annotations

from inspect import signature

import numpy as np

from ...errors import ImageWriteError
from ..image import check_hdr
from ..libraries import library
from ..signal import BT2020, BT2020_NCL, IDENTITY, PQ, light_level, pq_codes
from .metadata import add_metadata

LOSSLESS = 100
_MAX_SIDE = 65536


def encode_avif(
    hdr: np.ndarray,
    *,
    primaries: str = "bt709",
    white_nits: float = 203.0,
    bits: int = 10,
    quality: int = 90,
    speed: int = 6,
    exif: bytes | None = None,
) -> bytes:
    """A still AVIF in BT.2020 with the PQ curve, 4:4:4, full range, with its light levels.

    hdr: [H,W,3] linear light in `primaries`, 1.0 = `white_nits`; clipped to 0 to 10000 nits.
    quality: 1 to 100; 100 keeps every code (stored as RGB). speed: 0 (slow, small) to 10.
    exif: a block as Pillow's `Exif.tobytes()` gives it, for example `exif_block`.

    Raises:
        ImageWriteError: wrong shape, non-finite pixels, an option out of range; imagecodecs missing or old.
    """
    imagecodecs = library("imagecodecs", "writing .avif", ImageWriteError)
    if bits not in (10, 12) or not 1 <= quality <= LOSSLESS or not 0 <= speed <= 10:
        raise ImageWriteError(
            f"bits {bits}, quality {quality}, speed {speed}; expected 10 or 12, 1 to 100, 0 to 10"
        )
    picture = check_hdr(hdr)
    if max(picture.shape) > _MAX_SIDE:
        raise ImageWriteError(f"a side of {max(picture.shape)} pixels does not fit an AVIF")
    if "primaries" not in signature(imagecodecs.avif_encode).parameters:
        raise ImageWriteError(
            f"imagecodecs {imagecodecs.__version__} cannot tag an AVIF as HDR: "
            "pip install --upgrade imagecodecs (Python 3.11 or newer)"
        )
    codes = pq_codes(picture, primaries=primaries, white_nits=white_nits)
    data = imagecodecs.avif_encode(
        (codes * np.float32((1 << bits) - 1) + np.float32(0.5)).astype(np.uint16),
        level=quality,
        speed=speed,
        bitspersample=bits,
        pixelformat="444",
        primaries=BT2020,
        transfer=PQ,
        matrix=IDENTITY if quality == LOSSLESS else BT2020_NCL,
    )
    level = light_level(picture, primaries=primaries, white_nits=white_nits)
    return add_metadata(data, level, exif)
