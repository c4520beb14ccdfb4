"""Reads ordinary 8-bit pictures, so that one loader serves HDR and SDR files."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from ..errors import ImageReadError
from .image import HDRImage, check_size, reading
from .sdr_base import orient, read_base, use_known_primaries

FORMATS = ("WEBP", "BMP")


def decode_plain(data: bytes) -> HDRImage:
    """A WebP or BMP as its linear light and as SDR; of an animation the first frame.

    Raises:
        ImageReadError: another format, truncated, damaged or too large.
    """
    with reading("picture"):
        try:
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        except Image.UnidentifiedImageError:
            raise ImageReadError(
                "not a supported picture; supported are OpenEXR, Radiance, JPEG with or without a gain map, "
                "PNG, AVIF, JPEG XL, WebP and BMP"
            ) from None
        check_size(*image.size, source=str(image.format))
        has_alpha = "A" in image.getbands()
        base = read_base(image, image.info.get("icc_profile") or b"")
        picture = base.picture()
        if has_alpha:
            picture.alpha = np.asarray(image.convert("RGBA").getchannel("A"), np.float32) / 255
        use_known_primaries(picture, base.profile)
        picture.metadata["format"] = str(image.format).lower()
        orient(picture, image)
        return picture
