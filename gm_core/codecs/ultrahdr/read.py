"""Reads gain-map JPEGs of any writer: Ultra HDR (hdrgm XMP), ISO 21496-1 and Apple."""

from __future__ import annotations

import io
import logging

import numpy as np
from PIL.JpegImagePlugin import JpegImageFile

from ..icc import IccProfile, d50_matrix
from ..image import HDRImage, check_ratio, check_size, reading, row_blocks
from ..sdr_base import SDRBase, orient, read_base, rgb_profile, use_known_primaries
from . import jpeg_segments as jpeg
from .gain_map_search import GainMapPicture, find_gain_map

logger = logging.getLogger(__name__)

# Every 8x8 block of a Huffman-coded JPEG takes at least one bit.
_PIXELS_PER_BYTE = 512
_EXIF_IFD, _MAKER_NOTE = 0x8769, 0x927C


def decode_ultrahdr(data: bytes, *, headroom: float | None = None) -> HDRImage:
    """A JPEG with a gain map as HDR, SDR base and map; a plain JPEG as its linear light.

    headroom: linear peak of the display to render for (1 = SDR); None applies the whole gain map.
    Pictures stand upright: the Exif orientation is applied to all three. A base whose profile is none of
    BT.709, P3 and BT.2020 is converted to BT.2020.
    `metadata`: "format", "gain_map" (GainMapMetadata) where there is a map, "exif" (bytes) where present.

    Raises:
        ImageReadError: not a JPEG, truncated or damaged, or its gain map metadata is unusable.
    """
    with reading("JPEG"):
        primary = jpeg.parse_jpeg(data)
        opened = _open(data[: primary.end], primary)
        exif = opened.getexif()
        note = exif.get_ifd(_EXIF_IFD).get(_MAKER_NOTE, b"")
        found = find_gain_map(data, primary, note if isinstance(note, bytes) else b"")
        base = read_base(opened, primary.icc_profile())
        picture = base.picture()
        if found is None:
            picture.metadata["format"] = "jpeg"
        else:
            picture.metadata |= {"format": "ultrahdr", "gain_map": found.metadata}
            _apply(picture, base, found, found.metadata.weight(headroom))
        if "exif" in opened.info:
            picture.metadata["exif"] = opened.info["exif"]
        use_known_primaries(picture, base.profile)
        orient(picture, opened)
        return picture


def _open(data: bytes, stream: jpeg.Jpeg) -> JpegImageFile:
    """The picture, opened but not decoded, after its size has been found plausible."""
    width, height, _ = stream.size()
    check_size(width, height, source="JPEG")
    check_ratio(width * height, len(data), _PIXELS_PER_BYTE, source="JPEG")
    return JpegImageFile(io.BytesIO(data))


def _apply(picture: HDRImage, base: SDRBase, found: GainMapPicture, weight: float) -> None:
    """Turn the linear base in `picture.hdr` into the HDR rendition, in place."""
    opened = _open(found.data, found.stream)
    stored = np.asarray(opened if opened.mode == "L" else opened.convert("RGB"))
    stored = stored.reshape(*stored.shape[:2], -1)
    picture.gain_map = stored.astype(np.float32) / 255
    there, back = _working_space(base.profile, found)
    offset_sdr = np.array(found.metadata.offset_sdr, np.float32)
    offset_hdr = np.array(found.metadata.offset_hdr, np.float32)
    height, width = picture.hdr.shape[:2]
    for rows in row_blocks(height, width):
        light = picture.hdr[rows] @ there.T if there is not None else picture.hdr[rows]
        gains = _gain_rows(stored, found, rows, (height, width), weight)
        light = np.maximum((light + offset_sdr) * gains - offset_hdr, 0)
        picture.hdr[rows] = light @ back.T if back is not None else light


def _working_space(base: IccProfile | None, found: GainMapPicture) -> tuple[np.ndarray | None, ...]:
    """Matrices from the base's primaries to those the gain applies in and back; None where equal."""
    if found.metadata.use_base_primaries:
        return None, None
    profile = found.stream.icc_profile()
    other = rgb_profile(profile)
    if other is None:
        if profile:
            logger.warning("the gain map's colour profile is none of matrix and curves; the base's counts")
        return None, None
    to_xyz = d50_matrix("bt709") if base is None else base.to_xyz
    matrix = np.linalg.solve(other.to_xyz, to_xyz)
    return matrix.astype(np.float32), np.linalg.inv(matrix).astype(np.float32)


def _gain_rows(
    stored: np.ndarray, found: GainMapPicture, rows: slice, size: tuple[int, int], weight: float
) -> np.ndarray:
    """[rows,W,3] linear gain; a map of another size is interpolated as stored, as the standard asks."""
    channels = stored.shape[2]
    out = np.empty((rows.stop - rows.start, size[1], 3), np.float32)
    codes = np.arange(256, dtype=np.float32) / 255
    same_size = stored.shape[:2] == size
    block = stored[rows] if same_size else _bilinear_rows(stored, rows, size)
    for channel in range(3):
        values = block[..., channel % channels]
        gain = found.metadata.gain(codes if same_size else values, channel, weight)
        out[..., channel] = gain[values] if same_size else gain
    return out


def _bilinear_rows(stored: np.ndarray, rows: slice, size: tuple[int, int]) -> np.ndarray:
    """[rows,W,C] float32 in [0,1] of an 8-bit map stretched to `size`, pixel centres aligned."""
    top, bottom, y = _taps(stored.shape[0], size[0], rows)
    left, right, x = _taps(stored.shape[1], size[1], slice(0, size[1]))
    lines = stored[top] * (1 - y)[:, None, None] + stored[bottom] * y[:, None, None]
    return (lines[:, left] * (1 - x)[:, None] + lines[:, right] * x[:, None]) / np.float32(255)


def _taps(source: int, target: int, part: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    position = (np.arange(part.start, part.stop) + 0.5) * (source / target) - 0.5
    position = np.clip(position, 0, source - 1)
    low = position.astype(np.intp)
    return low, np.minimum(low + 1, source - 1), (position - low).astype(np.float32)
