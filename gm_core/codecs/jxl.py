"""JPEG XL with float samples, through imagecodecs."""

from __future__ import annotations

import numpy as np
import torch

from ..color import rgb_to_rgb, srgb_to_linear
from ..errors import ImageReadError, ImageWriteError
from .image import HDRImage, check_hdr, check_size, reading
from .jxl_metadata import CONTAINER
from .libraries import library

_CODESTREAM = b"\xff\x0a"
# The decoder needs several times the picture's size, and a few bytes can describe a picture of any size.
_MAX_PIXELS = 2**26
_RATIOS = (None, (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


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


def decode_jxl(data: bytes) -> HDRImage:
    """A JPEG XL: float samples as linear BT.709, integer samples as sRGB.

    Colour spaces other than these two are not told apart by the library.

    Raises:
        ImageReadError: damaged, truncated, too large, or imagecodecs is missing.
    """
    with reading("JPEG XL"):
        imagecodecs = library("imagecodecs", "reading .jxl", ImageReadError)
        check_size(*_size(data), source="JPEG XL", max_pixels=_MAX_PIXELS)
        pixels = imagecodecs.jpegxl_decode(data)
        pixels = pixels.reshape(*pixels.shape[:2], -1)
        colour = pixels[..., :3] if pixels.shape[2] > 2 else np.repeat(pixels[..., :1], 3, axis=-1)
        picture = _picture(np.ascontiguousarray(colour))
        if pixels.shape[2] in (2, 4):
            full = 1 if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max
            picture.alpha = pixels[..., -1].astype(np.float32) / full
        picture.metadata["format"] = "jxl"
        return picture


def is_jxl(data: bytes) -> bool:
    """Whether the first bytes are those of a JPEG XL codestream or container."""
    return data.startswith((_CODESTREAM, CONTAINER))


def _picture(colour: np.ndarray) -> HDRImage:
    if colour.dtype.kind == "f":
        return HDRImage(colour.astype(np.float32))
    sdr = colour.astype(np.float32) / np.float32(np.iinfo(colour.dtype).max)
    return HDRImage(srgb_to_linear(torch.from_numpy(sdr)).numpy(), sdr=sdr)


def _size(data: bytes) -> tuple[int, int]:
    """Width and height from the codestream's size header (ISO/IEC 18181-1, D.2)."""
    start = 0 if data.startswith(_CODESTREAM) else data.find(_CODESTREAM, len(CONTAINER))
    if start < 0 or len(data) < start + 16:
        raise ImageReadError("JPEG XL: no codestream; the file is truncated or damaged")
    bits = int.from_bytes(data[start + 2 : start + 16], "little")

    def take(count: int) -> int:
        nonlocal bits
        value, bits = bits & ((1 << count) - 1), bits >> count
        return value

    def side(small: int) -> int:
        return 8 * (take(5) + 1) if small else 1 + take((9, 13, 18, 30)[take(2)])

    small = take(1)
    height = side(small)
    ratio = _RATIOS[take(3)]
    return (side(small) if ratio is None else height * ratio[0] // ratio[1]), height
