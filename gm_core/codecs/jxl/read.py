"""Reads JPEG XL by its colour tags, through imagecodecs."""

from __future__ import annotations

import numpy as np

from ...errors import ImageReadError
from ..image import HDRImage, check_size, divide_by_alpha, reading
from ..libraries import library
from ..signal import UNSPECIFIED, picture_of
from .header import CODESTREAM, CONTAINER, Colour, read_header

# The library applies the plain power, without the headroom that cinemas leave.
_DCI, _DCI_GAMMA = 17, 2.6
_PROFILE_ONLY = (
    "JPEG XL: its colours are described by an ICC profile alone, which is not read from this format; convert "
    "it with libjxl's djxl to PNG, which keeps the profile, and load that"
)
# The decoder needs several times the picture's size, and a few bytes can describe a picture of any size.
_MAX_PIXELS = 2**26


def decode_jxl(data: bytes) -> HDRImage:
    """A JPEG XL by its colour tags: PQ, HLG, linear and plain powers as HDR, everything else as SDR; of an
    animation the first frame.

    Raises:
        ImageReadError: damaged, truncated, too large, its colours stand in an ICC profile alone, or
            imagecodecs is missing.
    """
    with reading("JPEG XL"):
        imagecodecs = library("imagecodecs", "reading .jxl", ImageReadError)
        header = read_header(data)
        check_size(header.width, header.height, source="JPEG XL", max_pixels=_MAX_PIXELS)
        if header.colour is None:
            raise ImageReadError(_PROFILE_ONLY)
        pixels = _samples(imagecodecs.jpegxl_decode(data, index=0), header.bits)
        colour = pixels[..., :3].copy() if pixels.shape[2] > 2 else np.repeat(pixels[..., :1], 3, axis=-1)
        alpha = pixels[..., -1].copy() if pixels.shape[2] in (2, 4) else None
        if alpha is not None and header.premultiplied:
            divide_by_alpha(colour, alpha)
        picture = _picture(colour, header.colour)
        picture.alpha = alpha
        picture.metadata["format"] = "jxl"
        return picture


def is_jxl(data: bytes) -> bool:
    """Whether the first bytes are those of a JPEG XL codestream or container."""
    return data.startswith((CODESTREAM, CONTAINER))


def _samples(pixels: np.ndarray, bits: int) -> np.ndarray:
    """float32 [H,W,C] of decoded pixels, integers as 0 to 1. The library gives integers of as many bits as
    the codestream states for colour, whatever holds them, and alpha of any depth on the same scale."""
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    if pixels.dtype.kind == "f":
        return pixels.astype(np.float32)
    return pixels.astype(np.float32) / np.float32((1 << bits) - 1)


def _picture(codes: np.ndarray, tags: Colour) -> HDRImage:
    gamma, transfer = (_DCI_GAMMA, None) if tags.transfer == _DCI else (tags.gamma, tags.transfer)
    return picture_of(codes, primaries=tags.chromaticities, transfer=transfer or UNSPECIFIED, gamma=gamma)
