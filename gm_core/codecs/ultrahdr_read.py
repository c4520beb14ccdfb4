"""Reads gain-map JPEGs of any writer: Ultra HDR (hdrgm XMP), ISO 21496-1 and Apple."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import torch
from PIL.JpegImagePlugin import JpegImageFile

from ..color import linear_to_srgb, srgb_to_linear
from . import jpeg_segments as jpeg
from .gain_map_search import GainMapPicture, find_gain_map
from .icc import IccProfile, d50_matrix, read_icc, srgb_table
from .image import HDRImage, check_ratio, check_size, reading, row_blocks

# Every 8x8 block of a Huffman-coded JPEG takes at least one bit.
_PIXELS_PER_BYTE = 512
_EXIF_IFD, _MAKER_NOTE, _ORIENTATION = 0x8769, 0x927C, 0x0112
_FALLBACK = "bt2020"


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
        base = _Base(np.asarray(opened.convert("RGB")), _profile(primary))
        picture = base.picture()
        if found is None:
            picture.metadata["format"] = "jpeg"
        else:
            picture.metadata |= {"format": "ultrahdr", "gain_map": found.metadata}
            _apply(picture, base, found, found.metadata.weight(headroom))
        if "exif" in opened.info:
            picture.metadata["exif"] = opened.info["exif"]
        _use_known_primaries(picture, base.profile)
        _orient(picture, exif.get(_ORIENTATION, 1))
        return picture


@dataclass(frozen=True)
class _Base:
    """The 8-bit base and its profile (None = sRGB)."""

    pixels: np.ndarray
    profile: IccProfile | None

    def linear(self) -> np.ndarray:
        """[3,256] float32 linear light of the codes."""
        return np.stack([srgb_table()] * 3) if self.profile is None else self.profile.curves

    def picture(self) -> HDRImage:
        """The base alone: its linear light, and the same with the sRGB curve."""
        linear = self.linear()
        encoded = linear_to_srgb(torch.from_numpy(linear)).numpy()
        codes = np.arange(256, dtype=np.float32) / 255
        if np.abs(encoded - codes).max() < 0.5 / 255:
            encoded = np.stack([codes] * 3)
        sdr = np.empty(self.pixels.shape, np.float32)
        hdr = np.empty(self.pixels.shape, np.float32)
        for channel in range(3):
            hdr[..., channel] = linear[channel][self.pixels[..., channel]]
            sdr[..., channel] = encoded[channel][self.pixels[..., channel]]
        return HDRImage(hdr, sdr=sdr, primaries=(self.profile and self.profile.primaries) or "bt709")


def _open(data: bytes, stream: jpeg.Jpeg) -> JpegImageFile:
    """The picture, opened but not decoded, after its size has been found plausible."""
    width, height, _ = stream.size()
    check_size(width, height, source="JPEG")
    check_ratio(width * height, len(data), _PIXELS_PER_BYTE, source="JPEG")
    return JpegImageFile(io.BytesIO(data))


def _profile(stream: jpeg.Jpeg) -> IccProfile | None:
    profile = stream.icc_profile()
    return read_icc(profile) if profile[16:20] == b"RGB " else None


def _apply(picture: HDRImage, base: _Base, found: GainMapPicture, weight: float) -> None:
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
        light = (light + offset_sdr) * gains - offset_hdr
        picture.hdr[rows] = light @ back.T if back is not None else light


def _working_space(base: IccProfile | None, found: GainMapPicture) -> tuple[np.ndarray | None, ...]:
    """Matrices from the base's primaries to those the gain applies in and back; None where equal."""
    if found.metadata.use_base_primaries or (other := _profile(found.stream)) is None:
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


def _use_known_primaries(picture: HDRImage, profile: IccProfile | None) -> None:
    if profile is None or profile.primaries is not None or picture.sdr is None:
        return
    matrix = np.linalg.solve(d50_matrix(_FALLBACK), profile.to_xyz).astype(np.float32)
    picture.hdr = picture.hdr @ matrix.T
    sdr = srgb_to_linear(torch.from_numpy(picture.sdr)).numpy() @ matrix.T
    picture.sdr = linear_to_srgb(torch.from_numpy(np.clip(sdr, 0, 1))).numpy()
    picture.primaries = _FALLBACK


def _orient(picture: HDRImage, orientation: int) -> None:
    """Apply an Exif orientation (1 to 8) to every picture."""
    picture.hdr = upright(picture.hdr, orientation)
    if picture.sdr is not None:
        picture.sdr = upright(picture.sdr, orientation)
    if picture.gain_map is not None:
        picture.gain_map = upright(picture.gain_map, orientation)


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """[H,W,C] turned upright from an Exif orientation; other values leave it as it is."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
