"""Reads PNG: 8 bits through Pillow, 16 bits with the colour tags that Pillow drops."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image, PngImagePlugin

from ..errors import ImageReadError
from .frames import opened, packed_pixels
from .icc import IccProfile
from .image import HDRImage, check_ratio, check_size, reading
from .png_write import SIGNATURE
from .sdr_base import SDRBase, orient, rgb_profile, use_known_primaries
from .signal import picture_of

_UNSPECIFIED = 2
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# No deflate stream is smaller than 1/1032 of what it holds.
_DEFLATE_RATIO = 1032


def decode_png(data: bytes) -> HDRImage:
    """A PNG of any depth; cICP tags (PQ, HLG, BT.2020 ...) and ICC profiles are honoured.

    `metadata`: "format", the text entries, "cicp" (four numbers) where present.

    Raises:
        ImageReadError: truncated, damaged, too large, or tagged with unsupported values.
    """
    with reading("PNG"):
        chunks = _read_chunks(data)
        width, height, depth, colour = struct.unpack_from(">IIBB", chunks[b"IHDR"])
        if colour not in _CHANNELS:
            raise ImageReadError(f"PNG: colour type {colour} does not exist")
        check_size(width, height, source="PNG")
        size = width * height * _CHANNELS[colour] * depth // 8
        check_ratio(size, len(data), _DEFLATE_RATIO, source="PNG")
        image = PngImagePlugin.PngImageFile(io.BytesIO(data))
        profile = rgb_profile(image.info.get("icc_profile") or b"")
        cicp = tuple(chunks.get(b"cICP", b"")[:4])
        pixels = _deep_pixels(data) if depth == 16 else _shallow_pixels(image)
        picture = _picture(pixels, cicp, profile)
        picture.metadata |= {**image.text, "format": "png"} | ({"cicp": cicp} if cicp else {})
        orient(picture, image.getexif())
        return picture


def _read_chunks(data: bytes) -> dict[bytes, bytes]:
    """The chunks before the pixels, by type; of several of one type the first."""
    chunks: dict[bytes, bytes] = {}
    position = len(SIGNATURE)
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"IDAT":
            break
        body = data[position + 8 : position + 8 + length]
        if data[position + 8 + length : position + 12 + length] != zlib.crc32(kind + body).to_bytes(4, "big"):
            raise ImageReadError(f"PNG: chunk {kind!r} at byte {position} is truncated or damaged")
        chunks.setdefault(kind, body)
        position += 12 + length
    if len(chunks.get(b"IHDR", b"")) != 13:
        raise ImageReadError("PNG: no header chunk")
    return chunks


def _shallow_pixels(image: Image.Image) -> np.ndarray:
    """uint8 [H,W,3|4]."""
    has_alpha = "A" in image.getbands() or "transparency" in image.info
    return np.asarray(image.convert("RGBA" if has_alpha else "RGB"))


def _deep_pixels(data: bytes) -> np.ndarray:
    """uint16 [H,W,3|4]; Pillow would drop the lower 8 bits."""
    with opened(data, "png_pipe") as container:
        pixels = packed_pixels(next(container.decode(video=0)))
    grey = pixels.shape[2] < 3
    return np.concatenate([np.repeat(pixels[..., :1], 3, axis=-1), pixels[..., 1:]], -1) if grey else pixels


def _picture(pixels: np.ndarray, cicp: tuple[int, ...], profile: IccProfile | None) -> HDRImage:
    codes = pixels / np.float32(np.iinfo(pixels.dtype).max)
    if len(cicp) == 4:
        if cicp[2:] != (0, 1):
            raise ImageReadError(f"PNG: cICP {cicp} is not full-range RGB")
        picture = picture_of(codes[..., :3], primaries=cicp[0], transfer=cicp[1])
    elif pixels.dtype == np.uint8:
        picture = SDRBase(pixels[..., :3], profile).picture()
        use_known_primaries(picture, profile)
    else:
        picture = picture_of(codes[..., :3], primaries=_UNSPECIFIED, transfer=_UNSPECIFIED)
        _apply_profile(picture, profile)
    if codes.shape[2] == 4:
        picture.alpha = codes[..., 3]
    return picture


def _apply_profile(picture: HDRImage, profile: IccProfile | None) -> None:
    if profile is None or picture.sdr is None:
        return
    codes = np.linspace(0, 1, 256)
    for channel, curve in enumerate(profile.curves):
        picture.hdr[..., channel] = np.interp(picture.sdr[..., channel], codes, curve)
    picture.primaries = profile.primaries or picture.primaries
    use_known_primaries(picture, profile)
