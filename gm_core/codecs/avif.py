"""AVIF with 10 or 12 bits, PQ, BT.2020, full chroma."""

from __future__ import annotations

from inspect import signature

import numpy as np

from ..errors import ImageReadError, ImageWriteError
from .avif_metadata import add_metadata
from .avif_transform import transforms
from .frames import frame_codes, frame_picture, opened
from .image import HDRImage, check_hdr, check_ratio, check_size, reading
from .libraries import library
from .sdr_base import turn
from .signal import BT2020, BT2020_NCL, IDENTITY, PQ, light_level, pq_codes

LOSSLESS = 100
_MAX_SIDE = 65536
# A plain 128x128 block takes a few bits.
_PIXELS_PER_BYTE = 20_000
_ALPHA = b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha"


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


def decode_avif(data: bytes) -> HDRImage:
    """An AVIF by its colour tags: PQ and HLG as HDR, everything else as SDR.

    The picture stands upright; a crop of the container is not applied.

    Raises:
        ImageReadError: damaged, truncated, too large, or of an unsupported colour format.
    """
    with reading("AVIF"), opened(data, "mov") as container:
        context = container.streams.video[0].codec_context
        check_size(context.width, context.height, source="AVIF")
        check_ratio(context.width * context.height, len(data), _PIXELS_PER_BYTE, source="AVIF")
        frame = next(container.decode(video=0), None)
        if frame is None:
            raise ImageReadError("AVIF: no picture in the file")
        picture = frame_picture(frame)
        if _ALPHA in data:
            picture.alpha = _alpha(data, picture.hdr.shape[:2])
        for step in transforms(data):
            turn(picture, step)
        picture.metadata |= {"format": "avif", "bits": frame.format.components[0].bits}
        return picture


def _alpha(data: bytes, size: tuple[int, ...]) -> np.ndarray | None:
    """The second picture in the file, if it is grey and as large as the first."""
    with opened(data, "mov") as container:
        contexts = [stream.codec_context for stream in container.streams.video]
        if len(contexts) < 2 or (contexts[1].height, contexts[1].width) != size:
            return None
        frame = next(container.decode(video=1), None)
        if frame is None or (frame.height, frame.width) != size or not frame.format.name.startswith("gray"):
            return None
        return frame_codes(frame)[..., 0]
