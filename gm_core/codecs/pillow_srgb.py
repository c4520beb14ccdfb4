"""A picture that Pillow opened as an upright, opaque one in 8-bit sRGB, as all that takes photos wants it."""

from __future__ import annotations

import io
import logging

import numpy as np
from PIL import ExifTags, Image, ImageCms

from ..errors import ImageReadError
from .icc import read_icc

logger = logging.getLogger(__name__)
ONE_16_BIT_CODE = 257
"""Codes of 16 bits that are one of 8."""


def to_srgb8(image: Image.Image) -> Image.Image:
    """`image` in mode RGB: turned by its Exif orientation, its colour profile applied, transparency laid over
    white.

    Raises:
        ImageReadError: floating-point or 32-bit pixels, of which nobody knows what is white.
        Others: whatever Pillow raises for damaged files, of which it documents no closed list.
    """
    image.load()  # which turns a TIFF already
    orientation, profile = exif_orientation(image), image.info.get("icc_profile") or b""
    alpha, opaque = transparency(image), with_profile_applied(in_8_bits(image), profile)
    if alpha is not None:
        opaque = Image.composite(opaque, Image.new("RGB", opaque.size, "white"), alpha)
    return opaque if orientation == 1 else Image.fromarray(upright(np.asarray(opaque), orientation))


def transparency(image: Image.Image) -> Image.Image | None:
    """Alpha of an 8-bit picture in mode L, also of a palette or of one colour; None where all is opaque."""
    if not image.has_transparency_data or image.mode.startswith("I"):
        return None
    return image.convert("RGBA").getchannel("A")


def exif_orientation(image: Image.Image) -> int:
    """1 to 8 as Exif has them; 1 of a damaged block or number, for the pixels are intact."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    # Pillow raises SyntaxError, struct.error and others here, and documents none.
    except Exception as error:
        logger.warning("its Exif block is damaged (%s); the picture is shown as it is stored", error)
        return 1
    return orientation if orientation in range(1, 9) else 1


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """[H,W,...] turned upright from an Exif orientation 1 to 8; other values leave it as it is."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    # A copy: of a single row or column NumPy calls a reversed view contiguous, which torch refuses.
    return pixels.copy(order="C")


def in_8_bits(image: Image.Image) -> Image.Image:
    """In mode L, RGB or CMYK, without transparency. Raises as `to_srgb8`."""
    if image.mode == "F":
        raise ImageReadError("holds floating-point pixels; SDR pictures of 8 or 16 bits are read")
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.max() > np.iinfo(np.uint16).max:
            raise ImageReadError("holds 32-bit pixels; SDR pictures of 8 or 16 bits are read")
        image = Image.fromarray((np.maximum(values, 0) / ONE_16_BIT_CODE + 0.5).astype(np.uint8))
    if image.mode in ("1", "L", "LA"):
        return image.convert("L")
    # Of palettes with transparency Pillow asks for RGBA first.
    return image if image.mode in ("RGB", "CMYK") else image.convert("RGBA").convert("RGB")


def with_profile_applied(image: Image.Image, profile: bytes) -> Image.Image:
    """A picture of mode L, RGB or CMYK as RGB in sRGB, from the colours of an ICC profile; no profile, or one
    that is damaged or of another kind of picture, changes nothing, as in browsers.
    """
    if not profile or is_srgb(profile):
        return image.convert("RGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        target, intent = ImageCms.createProfile("sRGB"), ImageCms.Intent.RELATIVE_COLORIMETRIC
        converted = ImageCms.profileToProfile(image, source, target, intent, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ImportError, ValueError) as error:
        logger.warning("its colour profile cannot be applied (%s); sRGB is assumed", error)
        return image.convert("RGB")
    return converted or image.convert("RGB")


def is_srgb(profile: bytes) -> bool:
    """By matrix and curve, not by name: linear profiles are called sRGB, too."""
    try:
        known = read_icc(profile)
    except ImageReadError:
        return False
    return known.primaries == "bt709" and known.has_srgb_curve
