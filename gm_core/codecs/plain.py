"""Reads ordinary 8-bit pictures, so that one loader serves HDR and SDR files."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from ..errors import ImageReadError
from .image import HDRImage, check_size, reading
from .sdr_base import SDRBase, orient, rgb_profile, use_known_primaries

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
        pixels = np.asarray(image.convert("RGBA" if has_alpha else "RGB"))
        profile = rgb_profile(image.info.get("icc_profile") or b"")
        picture = SDRBase(pixels[..., :3], profile).picture()
        if has_alpha:
            picture.alpha = pixels[..., 3].astype(np.float32) / 255
        use_known_primaries(picture, profile)
        picture.metadata["format"] = str(image.format).lower()
        orient(picture, image.getexif())
        return picture
