"""Which decoder reads a file: told by its first bytes, never by its name."""

from __future__ import annotations

from collections.abc import Callable

from .avif import decode_avif
from .exr import decode_exr
from .image import HDRImage
from .jxl import decode_jxl, is_jxl
from .plain import decode_plain
from .png import decode_png
from .png.write import SIGNATURE
from .radiance import decode_radiance
from .ultrahdr import decode_ultrahdr

_AVIF_BRANDS = (b"ftypavif", b"ftypavis", b"ftypmif1")


def decode_image(data: bytes) -> HDRImage:
    """Decode a picture of any supported format.

    Raises:
        ImageReadError: the format is not supported, or the data is truncated or damaged.
    """
    return _decoder(data)(data)


def _decoder(data: bytes) -> Callable[[bytes], HDRImage]:
    if data[:3] == b"\xff\xd8\xff":
        return decode_ultrahdr
    if data[:4] == b"v/1\x01":
        return decode_exr
    if data[:2] == b"#?":
        return decode_radiance
    if data[:8] == SIGNATURE:
        return decode_png
    if data[4:12] in _AVIF_BRANDS:
        return decode_avif
    if is_jxl(data):
        return decode_jxl
    return decode_plain
