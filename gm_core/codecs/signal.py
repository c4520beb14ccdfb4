"""Coded video signals to and from linear light: CICP numbers of ITU-T H.273, PQ and HLG of BT.2100."""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
import torch

from ..color import PQ_PEAK_NITS, PRIMARIES, pq_decode, pq_encode, rgb_to_rgb, srgb_to_linear
from ..hdr_signal import hlg_light
from .image import HDRImage, check_choice, row_blocks

# ITU-T H.273: primaries, transfer curves, matrices.
BT2020 = 9
PQ, HLG = 16, 18
IDENTITY, BT2020_NCL = 0, 9
_PRIMARIES = {1: "bt709", 9: "bt2020", 11: "p3", 12: "p3"}
_GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0}
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


def picture_of(codes: np.ndarray, *, primaries: int, transfer: int, white_nits: float = 203.0) -> HDRImage:
    """The picture of a full-range RGB signal [H,W,3] in [0,1], tagged with CICP numbers.

    Unspecified or SDR video curves (1, 2, 6, 13, 14, 15) are read with the sRGB curve, as browsers do, and
    give an SDR rendition too. PQ and HLG are scaled so that `white_nits` becomes 1.0; HLG through its
    reference display of 1000 nits.
    """
    name = _PRIMARIES.get(primaries, "bt709")
    hdr = np.empty(codes.shape, np.float32)
    for rows in row_blocks(*codes.shape[:2]):
        hdr[rows] = _linear(np.ascontiguousarray(codes[rows], np.float32), name, transfer, white_nits)
    is_sdr = transfer not in (PQ, HLG, *_GAMMAS)
    sdr = codes.astype(np.float32) if is_sdr else None
    return HDRImage(hdr, sdr=sdr, primaries=name, white_nits=white_nits)


def _linear(codes: np.ndarray, primaries: str, transfer: int, white_nits: float) -> np.ndarray:
    signal = torch.from_numpy(codes)
    if transfer == PQ:
        return (pq_decode(signal) / white_nits).numpy()
    if transfer == HLG:
        light = hlg_light(signal.movedim(-1, 0)[None], primaries)[0].movedim(0, -1)
        return (light / white_nits).numpy()
    if transfer in _GAMMAS:
        return codes ** np.float32(_GAMMAS[transfer])
    return srgb_to_linear(signal).numpy()
