"""Writes Ultra HDR JPEG: an SDR picture that every reader shows, and its gain map, described twice."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from PIL import Image

from ...errors import ImageWriteError
from ..icc import build_icc
from ..image import check_choice, check_hdr, check_shape, row_blocks
from . import jpeg_segments as jpeg
from .gain_map_fit import clip_noise, clip_stops, fit, log_gains, quantise_gains, shrink, with_decoded_peak
from .gain_map_metadata import GainMapMetadata
from .hdrgm_xmp import gain_map_xmp, primary_xmp
from .iso21496 import PRIMARY_VERSION, build_iso
from .mpf import MPF_LENGTH, build_mpf

logger = logging.getLogger(__name__)

# Measured on 30 panoramas: 0.5 to 3 dB PQ-PSNR over 1.0, while the steps in highlights stay below 0.05 stops.
GAMMA = 11 / 16
MAX_SIDE = 65500
# libultrahdr and the viewers built on it refuse larger pictures.
COMMON_SIDE = 8192
# From narrow to wide.
BASES = ("bt709", "p3", "bt2020")


class Preset(NamedTuple):
    """JPEG qualities of the two pictures."""

    quality: int
    gain_map_quality: int


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {"small": Preset(90, 95), "default": Preset(95, 98), "high": Preset(95, 100), "max": Preset(100, 100)}
)


def encode_ultrahdr(
    *,
    sdr: np.ndarray,
    hdr: np.ndarray,
    quality: int = PRESETS["default"].quality,
    gain_map_quality: int = PRESETS["default"].gain_map_quality,
    gain_map_scale: int = 1,
    primaries: str = "bt709",
    hdr_primaries: str | None = None,
    gamma: float = GAMMA,
    exif: bytes | None = None,
) -> bytes:
    """An Ultra HDR JPEG with hdrgm XMP and ISO 21496-1 metadata.

    sdr: [H,W,3], display-encoded with the sRGB curve in [0,1] (or uint8), in `primaries`. The base decodes
        exactly as a plain Pillow save of these pixels at `quality` does.
    hdr: [H,W,3], linear light, 1.0 = SDR white; negative values count as 0. In `primaries`, unless
        `hdr_primaries` names a wider set: then the gain applies in that set and no colour is lost, but
        only ISO 21496-1 can say so, and readers of the XMP alone show the base.
    gain_map_scale: 1, 2 or 4; the map is stored at this fraction of the picture.
    gamma: about the exponent on the stored map, undone by readers; below 1, small gains get more codes.
    exif: a complete Exif block as Pillow's `Exif.tobytes()` gives it.

    Gains above 15 stops are cut, which a warning in the log tells.

    The map is fitted to the base as a reader decodes it, so it also corrects the compression of the base.

    Raises:
        ImageWriteError: shapes differ, non-finite pixels, a side above 65500, or an option out of range.
    """
    check_choice(primaries, BASES, what="primaries")
    gain_primaries = hdr_primaries or primaries
    check_choice(gain_primaries, BASES[BASES.index(primaries) :], what="hdr_primaries")
    _check_options(quality, gain_map_quality, gain_map_scale, gamma)
    picture, light = check_shape(sdr, what="sdr"), check_hdr(hdr)
    _check_sizes(picture, light)
    codes = quantise(picture)
    lowest = float(log_gains(codes, light, primaries, gain_primaries)[0].min())
    base = _save_jpeg(codes, quality, icc_profile=build_icc(primaries))
    shown = np.asarray(Image.open(io.BytesIO(base)))
    gains, peak = log_gains(shown, light, primaries, gain_primaries)
    gains = shrink(clip_noise(clip_stops(gains), lowest), gain_map_scale)
    metadata = fit(gains, peak, gamma, use_base_primaries=gain_primaries == primaries)
    profile = None if metadata.use_base_primaries else build_icc(gain_primaries)
    gain_map = _save_gain_map(quantise_gains(gains, metadata), gain_map_quality, icc_profile=profile)
    stored = np.asarray(Image.open(io.BytesIO(gain_map)))
    return assemble(base, gain_map, with_decoded_peak(metadata, shown, stored), exif=exif)


def assemble(base: bytes, gain_map: bytes, metadata: GainMapMetadata, *, exif: bytes | None = None) -> bytes:
    """Join a base JPEG and a gain map JPEG into one file: primary picture, then map.

    Raises:
        ImageWriteError: `exif` does not fit one segment.
    """
    with_xmp = metadata.use_base_primaries
    second_xmp = [_xmp(gain_map_xmp(metadata))] if with_xmp else []
    second = _rebuild(gain_map, [*second_xmp, _iso(build_iso(metadata))])
    first_xmp = [_xmp(primary_xmp(len(second)))] if with_xmp else []
    before = [*first_xmp, _iso(PRIMARY_VERSION)]
    if exif:
        before.insert(0, (jpeg.APP1, jpeg.EXIF + exif.removeprefix(jpeg.EXIF)))
    # The index lists sizes and offsets that depend on its own length, which is fixed: write it twice.
    draft = _rebuild(base, before, bytes(MPF_LENGTH))
    mark = draft.index(jpeg.MPF + bytes(MPF_LENGTH)) + len(jpeg.MPF)
    index = build_mpf(primary_size=len(draft), second_size=len(second), mark_position=mark)
    return _rebuild(base, before, index) + second


def quantise(sdr: np.ndarray) -> np.ndarray:
    """uint8 codes of a picture in [0,1], rounded; NaN becomes 0. A uint8 picture is returned as it is."""
    if sdr.dtype == np.uint8:
        return sdr
    codes = np.empty(sdr.shape, np.uint8)
    for rows in row_blocks(*sdr.shape[:2]):
        scaled = np.clip(np.nan_to_num(sdr[rows].astype(np.float32)), 0, 1) * np.float32(255)
        codes[rows] = scaled + np.float32(0.5)
    return codes


def _check_options(quality: int, gain_map_quality: int, scale: int, gamma: float) -> None:
    if not (1 <= quality <= 100 and 1 <= gain_map_quality <= 100):
        raise ImageWriteError(f"JPEG qualities are {quality} and {gain_map_quality}; expected 1 to 100")
    if scale not in (1, 2, 4):
        raise ImageWriteError(f"gain_map_scale is {scale}; expected 1, 2 or 4")
    if not 0.1 <= gamma <= 10:
        raise ImageWriteError(f"gamma is {gamma}; expected 0.1 to 10")


def _check_sizes(sdr: np.ndarray, hdr: np.ndarray) -> None:
    if sdr.shape != hdr.shape:
        raise ImageWriteError(f"sdr has shape {sdr.shape} and hdr {hdr.shape}; they must be equal")
    side = max(sdr.shape[:2])
    if side > MAX_SIDE:
        raise ImageWriteError(f"a side of {side} pixels does not fit a JPEG (at most {MAX_SIDE})")
    if side > COMMON_SIDE:
        logger.warning("Ultra HDR with a side of %d pixels: many viewers stop at %d", side, COMMON_SIDE)


def _save_jpeg(pixels: np.ndarray, quality: int, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=0, **options)
    return buffer.getvalue()


def _save_gain_map(codes: np.ndarray, quality: int, **options: object) -> bytes:
    """The map with Huffman tables of its own, about a tenth smaller."""
    try:
        return _save_jpeg(codes, quality, optimize=True, **options)
    except OSError:
        # Pillow's buffer for this is 16 bits a pixel, too small for pure noise.
        return _save_jpeg(codes, quality, **options)


def _rebuild(data: bytes, inserted: list[tuple[int, bytes]], index: bytes | None = None) -> bytes:
    """The JPEG with segments inserted behind JFIF, and the picture index behind the last APP segment."""
    stream = jpeg.parse_jpeg(data)
    head = [(s.marker, s.payload) for s in stream.segments]
    apps = [segment for segment in head if 0xE0 <= segment[0] <= 0xEF]
    others = [segment for segment in head if not 0xE0 <= segment[0] <= 0xEF]
    jfif = [segment for segment in apps if segment[0] == jpeg.APP0]
    profile = [segment for segment in apps if segment[0] != jpeg.APP0]
    last = [] if index is None else [(jpeg.APP2, jpeg.MPF + index)]
    return jpeg.build_jpeg([*jfif, *inserted, *profile, *last, *others], data[stream.scan :])


def _xmp(packet: bytes) -> tuple[int, bytes]:
    return jpeg.APP1, jpeg.XMP + packet


def _iso(payload: bytes) -> tuple[int, bytes]:
    return jpeg.APP2, jpeg.ISO_GAIN_MAP + payload
