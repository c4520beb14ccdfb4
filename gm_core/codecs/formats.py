"""Which decoder reads a file: told by its first bytes, never by its name."""

from __future__ import annotations

from ..errors import ImageReadError
from .exr_read import decode_exr
from .image import Decoder, HDRImage
from .radiance import decode_radiance
from .ultrahdr_read import decode_ultrahdr


def decode_image(data: bytes) -> HDRImage:
    """Decode a picture of any supported format.

    Raises:
        ImageReadError: the format is not supported, or the data is truncated or damaged.
    """
    return _decoder(data)(data)


def _decoder(data: bytes) -> Decoder:
    if data[:3] == b"\xff\xd8\xff":
        return decode_ultrahdr
    if data[:4] == b"v/1\x01":
        return decode_exr
    if data[:2] == b"#?":
        return decode_radiance
    raise ImageReadError("not a supported picture")
