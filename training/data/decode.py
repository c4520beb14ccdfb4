"""Pictures from bytes or files, in spite of everything that photo collections contain."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from gm_core.codecs.pillow_srgb import exif_orientation, to_srgb8
from training.errors import RejectedSample

ImageSource = bytes | Path

# What Pillow's readers raise for damaged files: among others RuntimeError for AVIF, TypeError for TIFF and
# struct.error for EXIF.
DAMAGE = (OSError, SyntaxError, ValueError, TypeError, LookupError, RuntimeError, struct.error)
# EXIF orientations that turn a picture on its side.
ON_ITS_SIDE = (5, 6, 7, 8)


def read_bytes(source: ImageSource) -> bytes:
    """The encoded picture. Raises: RejectedSample `missing_file`."""
    if isinstance(source, bytes):
        return source
    try:
        return source.read_bytes()
    except OSError as error:
        raise RejectedSample("missing_file", f"{source}: {error.strerror}") from error
    except ValueError as error:
        # A null byte or half a character: no file can have that name.
        raise RejectedSample("missing_file", f"{str(source)!r}: {error}") from error


def decode_sdr(data: bytes, *, min_side: int = 1) -> Image.Image:
    """Decode to an upright 8-bit sRGB picture.

    CMYK, grey, palette and 16-bit pictures are converted, transparency is laid over white, EXIF
    orientation is applied and an embedded colour profile is converted to sRGB.

    Raises: RejectedSample `unreadable_image`, `animated_image`, `oversize_image` or `small_image`.
    """
    try:
        picture = Image.open(io.BytesIO(data))
        _refuse_unusual(picture)
        upright = to_srgb8(picture)
    except RejectedSample:
        raise
    except Image.DecompressionBombError as error:
        raise RejectedSample("oversize_image", str(error)) from error
    except UnidentifiedImageError as error:
        raise RejectedSample("unreadable_image", f"{len(data)} bytes of no known picture format") from error
    except DAMAGE as error:
        raise RejectedSample("unreadable_image", str(error)[:200]) from error
    if min(upright.size) < min_side:
        raise RejectedSample("small_image", f"{upright.width}x{upright.height}, shorter than {min_side}")
    return upright


def _refuse_unusual(picture: Image.Image) -> None:
    # Not through warnings as errors: filters belong to the process, and pictures are decoded in threads.
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and picture.width * picture.height > limit:
        raise RejectedSample("oversize_image", f"{picture.width}x{picture.height}, more than {limit} pixels")
    # An MPO is a photo with a preview or a gain map behind it, as phones and cameras write them.
    if getattr(picture, "is_animated", False) and picture.format != "MPO":
        raise RejectedSample("animated_image", f"{getattr(picture, 'n_frames', 2)} frames")


def image_size(data: bytes) -> tuple[int, int]:
    """(height, width) after EXIF orientation, from the header alone.

    Raises: RejectedSample `unreadable_image` or `oversize_image`.
    """
    try:
        with Image.open(io.BytesIO(data)) as picture:
            # Pillow gives the size of a TIFF as it is when upright.
            turned = picture.format != "TIFF" and exif_orientation(picture) in ON_ITS_SIDE
            width, height = picture.size
    except Image.DecompressionBombError as error:
        raise RejectedSample("oversize_image", str(error)) from error
    except DAMAGE as error:
        raise RejectedSample("unreadable_image", str(error)[:200]) from error
    return (width, height) if turned else (height, width)


def decode_gain_map(data: bytes) -> NDArray[np.float32]:
    """Decode an 8- or 16-bit gain-map picture to [H,W,3] in [0,1]; grey maps are repeated.

    Raises: RejectedSample `unreadable_gainmap`.
    """
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise RejectedSample("unreadable_gainmap", str(error)[:200]) from error
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
        raise RejectedSample("unreadable_gainmap", "not an 8- or 16-bit picture")
    coded: NDArray[np.float32] = np.divide(pixels, np.iinfo(pixels.dtype).max, dtype=np.float32)
    if coded.ndim == 2:
        return np.repeat(coded[..., None], 3, axis=2)
    return np.ascontiguousarray(coded[..., 2::-1])


def encode_gain_map(coded: NDArray[np.float32], bits: int = 16) -> bytes:
    """[H,W,3] in [0,1] to an RGB PNG of 8 or 16 bits."""
    kind = np.uint8 if bits == 8 else np.uint16
    codes = np.rint(np.clip(coded, 0, 1) * np.iinfo(kind).max).astype(kind)
    done, data = cv2.imencode(".png", codes[..., ::-1])
    if not done:
        raise ValueError(f"PNG encoder refused an array of shape {coded.shape}")
    return data.tobytes()
