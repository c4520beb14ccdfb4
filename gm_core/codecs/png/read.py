"""Reads PNG: 8 bits through Pillow, 16 bits with the colour tags that Pillow drops."""

from __future__ import annotations

import io
import logging
import struct

import numpy as np
from PIL import Image, PngImagePlugin

from ...errors import ImageReadError
from ..chromaticities import rgb_to_xyz_of
from ..frames import full_range, opened, packed_pixels
from ..icc import IccProfile, adapted_to_d50, code_steps, d50_matrix, profile_of, srgb_table
from ..image import HDRImage, check_ratio, check_size, reading
from ..profiles import picture_of_profile
from ..sdr_base import SDRBase, orient, read_base, use_known_primaries
from ..signal import picture_of
from .chunks import chunks_before_pixels, pixels_alone, profile_in, without_oversized

logger = logging.getLogger(__name__)

_SRGB_GAMMA = 0.45455
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
        chunks = chunks_before_pixels(data)
        width, height, depth, colour = struct.unpack_from(">IIBB", chunks[b"IHDR"])
        if colour not in _CHANNELS:
            raise ImageReadError(f"PNG: colour type {colour} does not exist")
        check_size(width, height, source="PNG")
        size = width * height * _CHANNELS[colour] * depth // 8
        check_ratio(size, len(data), _DEFLATE_RATIO, source="PNG")
        image = PngImagePlugin.PngImageFile(io.BytesIO(without_oversized(data)))
        cicp = tuple(chunks.get(b"cICP", b"")[:4])
        if depth == 16:
            picture = _signal(_deep_pixels(data), _profile(chunks), cicp)
        else:
            picture = _shallow(image, chunks, cicp)
        picture.metadata |= {**image.text, "format": "png"} | ({"cicp": cicp} if cicp else {})
        orient(picture, image)
        return picture


def _profile(chunks: dict[bytes, bytes]) -> bytes | IccProfile:
    """The ICC profile, or what `gAMA` and `cHRM` say where neither it nor `sRGB` stands beside them."""
    icc = profile_in(chunks)
    if icc or b"sRGB" in chunks or not {b"gAMA", b"cHRM"} & chunks.keys():
        return icc
    gamma = int.from_bytes(chunks.get(b"gAMA", b""), "big") / 100_000 or _SRGB_GAMMA
    near_srgb = abs(gamma - _SRGB_GAMMA) < 0.005
    curve = srgb_table(16) if near_srgb else code_steps() ** (1 / max(gamma, 0.01))
    return profile_of(_to_xyz(chunks), np.stack([curve] * 3))


def _to_xyz(chunks: dict[bytes, bytes]) -> np.ndarray:
    """[3,3] linear RGB to XYZ relative to D50 by `cHRM`, or of BT.709 where it is missing or unusable."""
    if b"cHRM" in chunks:
        white, *primaries = np.array(struct.unpack_from(">8I", chunks[b"cHRM"])).reshape(4, 2) / 100_000
        try:
            return adapted_to_d50(rgb_to_xyz_of(np.concatenate([*primaries, white]).tolist()))
        except ImageReadError as error:
            logger.info("%s; BT.709 is assumed", error)
    return d50_matrix("bt709")


def _shallow(image: Image.Image, chunks: dict[bytes, bytes], cicp: tuple[int, ...]) -> HDRImage:
    """The picture of 8 bits or fewer."""
    _scale_transparency(image, chunks)
    alpha = None
    if "A" in image.getbands() or "transparency" in image.info:
        alpha = np.asarray(image.convert("RGBA").getchannel("A"))
    if cicp:
        pixels = np.asarray(image.convert("RGB"))
        return _signal(pixels if alpha is None else np.dstack([pixels, alpha]), b"", cicp)
    profile = _profile(chunks)
    tagged = isinstance(profile, IccProfile)
    base = SDRBase(np.asarray(image.convert("RGB")), profile) if tagged else read_base(image, profile)
    picture = base.picture()
    use_known_primaries(picture, base.profile)
    picture.alpha = None if alpha is None else alpha.astype(np.float32) / 255
    return picture


def _scale_transparency(image: Image.Image, chunks: dict[bytes, bytes]) -> None:
    """Say the one transparent grey in 8 bits: Pillow gives pixels of 2 and 4 bits in 8, but not this."""
    depth, colour = chunks[b"IHDR"][8:10]
    if colour == 0 and depth in (2, 4) and "transparency" in image.info:
        highest = (1 << depth) - 1
        image.info["transparency"] = (image.info["transparency"] & highest) * 255 // highest


def _deep_pixels(data: bytes) -> np.ndarray:
    """uint16 [H,W,3|4]; Pillow would drop the lower 8 bits."""
    with opened(pixels_alone(data), "png_pipe") as container:
        pixels = packed_pixels(next(container.decode(video=0)))
    grey = pixels.shape[2] < 3
    return np.concatenate([np.repeat(pixels[..., :1], 3, axis=-1), pixels[..., 1:]], -1) if grey else pixels


def _signal(pixels: np.ndarray, profile: bytes | IccProfile, cicp: tuple[int, ...]) -> HDRImage:
    """The picture of codes [H,W,3|4], by its tags or its profile."""
    bits = 8 * pixels.dtype.itemsize
    limited = len(cicp) == 4 and cicp[3] == 0
    colour = full_range(pixels[..., :3].astype(np.float32), bits, limited=limited)
    if len(cicp) == 4:
        if cicp[2] != 0 or cicp[3] > 1:
            raise ImageReadError(f"PNG: cICP {cicp} is not RGB, which PNG alone knows; write the tags anew")
        picture = picture_of(np.clip(colour, 0, 1), primaries=cicp[0], transfer=cicp[1])
    else:
        picture = picture_of_profile(colour, profile)
    if pixels.shape[2] == 4:
        picture.alpha = full_range(pixels[..., 3].astype(np.float32), bits, limited=False)
    return picture
