"""An 8-bit picture and its colour profile as linear light, and Exif orientation."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from ..color import linear_to_srgb
from ..errors import ImageReadError
from .chromaticities import FALLBACK, convert
from .icc import IccProfile, d50_matrix, read_cicp, read_icc, srgb_table
from .image import HDRImage
from .pillow_srgb import exif_orientation, in_8_bits, upright, with_profile_applied
from .signal import HLG, PQ, picture_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SDRBase:
    """pixels: uint8 [H,W,3]. profile: its ICC profile, or None for sRGB. signal: primaries and curve in
    numbers of H.273 where the profile says that the pixels are PQ or HLG; then there is no SDR rendition."""

    pixels: np.ndarray
    profile: IccProfile | None
    signal: tuple[int, int] | None = None

    def picture(self) -> HDRImage:
        """The pixels as linear light, and as SDR with the sRGB curve."""
        if self.signal is not None:
            codes = self.pixels.astype(np.float32) / 255
            return picture_of(codes, primaries=self.signal[0], transfer=self.signal[1])
        linear = np.stack([srgb_table()] * 3) if self.profile is None else self.profile.table
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


def read_base(image: Image.Image, profile: bytes) -> SDRBase:
    """The picture with its profile. One whose profile matrix and curves cannot express, as for print, grey or
    of a scanner, is converted to sRGB."""
    signal = hdr_signal(profile)
    if signal is not None:
        return SDRBase(np.asarray(image.convert("RGB")), None, signal)
    known = rgb_profile(profile)
    if known is None:
        image = with_profile_applied(in_8_bits(image), profile)
    return SDRBase(np.asarray(image.convert("RGB")), known)


def hdr_signal(profile: bytes) -> tuple[int, int] | None:
    """Primaries and curve in numbers of H.273 of a profile that says PQ or HLG by number, which its matrix
    and curves cannot express; else None."""
    stated = read_cicp(profile)
    return stated if stated is not None and stated[1] in (PQ, HLG) else None


def rgb_profile(profile: bytes) -> IccProfile | None:
    """The profile of an RGB picture; None, which means sRGB, where it is empty, for another colour space or
    of a kind that matrix and curves cannot express."""
    return known_profile(profile) if profile[16:20] == b"RGB " else None


def known_profile(profile: bytes) -> IccProfile | None:
    """The profile of an RGB or grey picture; None where it is empty or of another kind."""
    try:
        return read_icc(profile) if profile else None
    except ImageReadError as error:
        logger.info("%s", error)
        return None


def use_known_primaries(picture: HDRImage, profile: IccProfile | None) -> None:
    """Convert a picture whose profile names none of our primaries to BT.2020, in place."""
    if profile is None or profile.primaries is not None:
        return
    convert(picture, np.linalg.solve(d50_matrix(FALLBACK), profile.to_xyz).astype(np.float32))


def orient(picture: HDRImage, image: Image.Image) -> None:
    """Turn every plane of a picture upright, in place, by the Exif block of the file it was read from. A
    damaged block counts as none: the pixels are intact."""
    turn(picture, exif_orientation(image))


def turn(picture: HDRImage, orientation: int) -> None:
    """Turn every plane of a picture upright, in place, from an Exif orientation."""
    for name in ("hdr", "sdr", "gain_map", "alpha"):
        pixels = getattr(picture, name)
        if pixels is not None and orientation != 1:
            setattr(picture, name, upright(pixels, orientation))


def crop(picture: HDRImage, rows: slice, columns: slice) -> None:
    """Keep these pixels of a picture without a gain map, in place."""
    for name in ("hdr", "sdr", "alpha"):
        pixels = getattr(picture, name)
        if pixels is not None:
            setattr(picture, name, np.ascontiguousarray(pixels[rows, columns]))
