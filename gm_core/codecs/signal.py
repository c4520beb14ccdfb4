"""Coded video signals to and from linear light: CICP numbers of ITU-T H.273, PQ and HLG of BT.2100."""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
import torch

from ..color import PQ_PEAK_NITS, PRIMARIES, pq_decode, pq_encode, rgb_to_rgb, srgb_to_linear
from ..errors import ImageReadError
from ..hdr_signal import hlg_light
from .chromaticities import convert, resolve_primaries
from .image import HDRImage, check_choice, row_blocks

# ITU-T H.273: primaries, transfer curves, matrices.
BT709, UNSPECIFIED, BT2020 = 1, 2, 9
LINEAR, SRGB, PQ, HLG = 8, 13, 16, 18
IDENTITY, BT2020_NCL = 0, 9
_NAMED = {1: "bt709", 9: "bt2020", 12: "p3"}
# H.273 table 2: x, y of red, green, blue and white of those that have no name here.
_CHROMATICITIES = {
    4: (0.67, 0.33, 0.21, 0.71, 0.14, 0.08, 0.310, 0.316),
    5: (0.64, 0.33, 0.29, 0.60, 0.15, 0.06, 0.3127, 0.3290),
    6: (0.630, 0.340, 0.310, 0.595, 0.155, 0.070, 0.3127, 0.3290),
    7: (0.630, 0.340, 0.310, 0.595, 0.155, 0.070, 0.3127, 0.3290),
    8: (0.681, 0.319, 0.243, 0.692, 0.145, 0.049, 0.310, 0.316),
    10: (1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1 / 3, 1 / 3),
    11: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, 0.314, 0.351),
    22: (0.630, 0.340, 0.295, 0.605, 0.155, 0.077, 0.3127, 0.3290),
}
# Curves of SDR video are read with the sRGB curve, as browsers do.
_SDR_CURVES = {0, 1, 2, 3, 6, 7, 11, 12, 13, 14, 15}
# Curve -> exponent and factor; 17 is that of digital cinema, SMPTE ST 428-1.
_POWERS = {4: (2.2, 1.0), 5: (2.8, 1.0), LINEAR: (1.0, 1.0), 17: (2.6, 52.37 / 48)}
# SMPTE ST 2086 counts chromaticities in 0.00002 and luminances in 0.0001 cd/m2.
XY_UNIT, NIT_UNIT = 0.00002, 0.0001


class LightLevel(NamedTuple):
    """CTA-861.3 light levels in cd/m2: the brightest pixel and the mean, each of max(R, G, B)."""

    max_cll: float
    average: float


def pq_codes(hdr: np.ndarray, *, primaries: str, white_nits: float) -> np.ndarray:
    """float32 [H,W,3] in [0,1]: PQ signal in BT.2020 of linear light with 1.0 = `white_nits`."""
    out = np.empty(hdr.shape, np.float32)
    for rows in row_blocks(*hdr.shape[:2]):
        nits = bt2020_nits(hdr[rows], primaries=primaries, white_nits=white_nits)
        out[rows] = pq_encode(torch.from_numpy(nits)).numpy()
    return out


def light_level(hdr: np.ndarray, *, primaries: str, white_nits: float) -> LightLevel:
    """Light levels of one picture as a PQ file in BT.2020 will hold it."""
    peak, total = 0.0, 0.0
    for rows in row_blocks(*hdr.shape[:2]):
        brightest = bt2020_nits(hdr[rows], primaries=primaries, white_nits=white_nits).max(axis=-1)
        peak = max(peak, float(brightest.max()))
        total += float(brightest.sum(dtype=np.float64))
    return LightLevel(peak, total / (hdr.shape[0] * hdr.shape[1]))


def mastering_display(order: tuple[str, str, str]) -> bytes:
    """SMPTE ST 2086 metadata of a display that shows all that PQ can say: BT.2020, 0.0001 to 10000 cd/m2.

    order: of the primaries, which PNG's mDCV lists as red, green, blue and ISO media files' mdcv as green,
        blue, red.
    """
    chroma = PRIMARIES["bt2020"]
    points = [*(getattr(chroma, name) for name in order), chroma.white]
    xy = [round(value / XY_UNIT) for point in points for value in point]
    return struct.pack(">8HII", *xy, round(PQ_PEAK_NITS / NIT_UNIT), round(0.0001 / NIT_UNIT))


def bt2020_nits(hdr: np.ndarray, *, primaries: str, white_nits: float) -> np.ndarray:
    """float32 linear BT.2020 in cd/m2, clipped to what PQ holds: 0 to 10000."""
    check_choice(primaries, PRIMARIES, what="primaries")
    matrix = rgb_to_rgb(primaries, "bt2020").numpy() * white_nits
    return np.clip(hdr @ matrix.T.astype(np.float32), 0, PQ_PEAK_NITS)


def picture_of(
    codes: np.ndarray,
    *,
    primaries: int | tuple[float, ...],
    transfer: int,
    gamma: float | None = None,
    white_nits: float = 203.0,
) -> HDRImage:
    """The picture of a full-range RGB signal [H,W,3], tagged with CICP numbers. Floats may leave [0,1]: those
    are colours outside the primaries, and highlights.

    Unspecified or SDR video curves are read with the sRGB curve, as browsers do, and give an SDR rendition
    too. PQ and HLG are scaled so that `white_nits` becomes 1.0; HLG through its reference display of 1000
    nits. Unspecified primaries are those of BT.2100 under its curves, otherwise BT.709.

    primaries: or x, y of red, green, blue and white. Sets without a name here are converted to BT.2020.
    gamma: the exponent of a plain power curve; then `transfer` does not count.

    Raises:
        ImageReadError: the curve is a logarithmic one or none of the standard.
    """
    name, matrix = _colour_space(primaries, transfer)
    if gamma is None and transfer not in (PQ, HLG, *_POWERS, *_SDR_CURVES):
        raise ImageReadError(
            f"transfer curve {transfer} of H.273 is not supported; convert the picture to PQ, HLG or sRGB"
        )
    hdr = np.empty(codes.shape, np.float32)
    for rows in row_blocks(*codes.shape[:2]):
        block = np.ascontiguousarray(codes[rows], np.float32)
        powered = gamma is not None
        hdr[rows] = _power(block, gamma) if powered else _linear(block, name, transfer, white_nits)
    is_sdr = gamma is None and transfer in _SDR_CURVES
    sdr = np.clip(codes, 0, 1).astype(np.float32, copy=False) if is_sdr else None
    picture = HDRImage(hdr, sdr=sdr, primaries=name, white_nits=white_nits)
    if matrix is not None:
        convert(picture, matrix)
    return picture


def _colour_space(primaries: int | tuple[float, ...], transfer: int) -> tuple[str, np.ndarray | None]:
    """The set's name, or BT.2020 and the matrix that converts to it."""
    if not isinstance(primaries, int):
        return resolve_primaries(primaries)
    if primaries in _CHROMATICITIES:
        return resolve_primaries(_CHROMATICITIES[primaries])
    return _NAMED.get(primaries, "bt2020" if transfer in (PQ, HLG) else "bt709"), None


def _linear(codes: np.ndarray, primaries: str, transfer: int, white_nits: float) -> np.ndarray:
    signal = torch.from_numpy(codes)
    if transfer == PQ:
        return (pq_decode(signal) / white_nits).numpy()
    if transfer == HLG:
        light = hlg_light(signal.movedim(-1, 0)[None], primaries)[0].movedim(0, -1)
        return (light / white_nits).numpy()
    if transfer in _POWERS:
        exponent, factor = _POWERS[transfer]
        return _power(codes, exponent) * np.float32(factor)
    return srgb_to_linear(signal).numpy()


def _power(codes: np.ndarray, exponent: float) -> np.ndarray:
    """A power curve; negative values, of which there is no power, mirror it."""
    return np.copysign(np.abs(codes) ** np.float32(exponent), codes)
