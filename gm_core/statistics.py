"""How bright a picture is, how much of it is above SDR white, and what is wrong with it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .color import convert_primaries, luminance

PERCENTILES = (1.0, 50.0, 90.0, 99.0, 99.9)
HISTOGRAM_STOPS = (-12, 8)
BINS_PER_STOP = 4
# Rounding of the luminance weights must not put plain white above white, or grey outside a gamut.
_TOLERANCE = 1e-3
_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class HDRStatistics:
    """Of all pixels of a batch. Luminances are of finite pixels, shares of all, between 0 and 1.

    Args:
        pixels: all of them, finite or not.
        peak_nits: luminance of the brightest pixel in cd/m2.
        average_nits: mean luminance in cd/m2.
        percentile_nits: luminance that this percentage of the pixels does not exceed.
        stops_above_white: of the peak; 0 where it is not above SDR white.
        share_above_white: pixels brighter than SDR white.
        clipped_share: pixels with a channel at the largest value in the batch. More than a few are a ceiling.
        out_of_gamut_share: pixels whose colour lies outside the gamut that was asked about.
        nan, infinite, negative: values, not pixels, as they are in the batch.
        histogram: shares of the pixels by luminance, `BINS_PER_STOP` bins a stop over `HISTOGRAM_STOPS`
            around SDR white; what lies outside is in the first and last bin.
    """

    pixels: int
    peak_nits: float
    average_nits: float
    percentile_nits: dict[float, float]
    stops_above_white: float
    share_above_white: float
    clipped_share: float
    out_of_gamut_share: float
    nan: int
    infinite: int
    negative: int
    histogram: tuple[float, ...]


def hdr_statistics(
    hdr: Tensor, *, primaries: str = "bt709", gamut: str = "bt709", white_nits: float = 203.0
) -> HDRStatistics:
    """Measures a batch of HDR pictures as one.

    Args:
        hdr: [B,3,H,W] linear light in `primaries`, 1.0 = SDR white, of any floating type and device; may hold
            NaN and infinite values.
        primaries: those of the batch, a name in `gm_core.color.PRIMARIES`.
        gamut: the primaries that colours are counted as outside of.
        white_nits: luminance of SDR white in cd/m2.

    Raises:
        GainMapError: unknown primaries or gamut.
    """
    pixels = hdr.shape[0] * hdr.shape[2] * hdr.shape[3]
    # Of a film nothing but its luminances is held beside it.
    pictures = hdr.split(1)
    light = torch.cat([luminance(_sound(picture), primaries).flatten().clamp(min=0) for picture in pictures])
    peak = light.max().item() if len(light) else 0.0
    top = max((_sound(picture).amax().item() for picture in pictures if _finite(picture).any()), default=0.0)
    return HDRStatistics(
        pixels=pixels,
        peak_nits=peak * white_nits,
        average_nits=light.mean(dtype=torch.float64).item() * white_nits if len(light) else 0.0,
        percentile_nits=_percentiles(light, white_nits),
        stops_above_white=max(0.0, math.log2(peak)) if peak > 1 + _TOLERANCE else 0.0,
        share_above_white=int((light > 1 + _TOLERANCE).sum()) / pixels,
        clipped_share=sum(_at_ceiling(picture, top) for picture in pictures) / pixels,
        out_of_gamut_share=sum(_outside(picture, primaries, gamut) for picture in pictures) / pixels,
        nan=sum(int(picture.isnan().sum()) for picture in pictures),
        infinite=sum(int(picture.isinf().sum()) for picture in pictures),
        negative=sum(int((picture < 0).sum()) for picture in pictures),
        histogram=_histogram(light, pixels),
    )


def _finite(picture: Tensor) -> Tensor:
    """Where all channels of [B,3,H,W] are, [B,H,W]."""
    return torch.isfinite(picture).all(dim=1)


def _sound(picture: Tensor) -> Tensor:
    """The finite pixels of [B,3,H,W], [1,3,1,N] float32 on the CPU."""
    chosen = picture.movedim(1, -1)[_finite(picture)].T[None, :, None]
    return chosen.to("cpu", torch.float32)


def _at_ceiling(picture: Tensor, top: float) -> int:
    """Pixels with a channel at the largest value of the batch, if that is above 0."""
    return int((_sound(picture).amax(dim=1) >= top * (1 - _TOLERANCE)).sum()) if top > 0 else 0


def _outside(picture: Tensor, primaries: str, gamut: str) -> int:
    """Pixels whose colour lies outside of `gamut`."""
    return int((convert_primaries(_sound(picture), primaries, gamut).amin(dim=1) < -_TOLERANCE).sum())


def _percentiles(light: Tensor, white_nits: float) -> dict[float, float]:
    """Nearest rank: always the luminance of a pixel that is there."""
    if not len(light):
        return dict.fromkeys(PERCENTILES, 0.0)
    ranks = [max(0, math.ceil(p / 100 * len(light)) - 1) for p in PERCENTILES]
    # torch.sort would also make an index of twice the size.
    found = np.partition(light.numpy(), ranks)[ranks]
    return {p: value * white_nits for p, value in zip(PERCENTILES, found.tolist(), strict=True)}


def _histogram(light: Tensor, pixels: int) -> tuple[float, ...]:
    low, high = HISTOGRAM_STOPS
    bins = (high - low) * BINS_PER_STOP
    counts = torch.zeros(bins, dtype=torch.long)
    for some in light.split(_AT_ONCE):
        stops = some.clamp(min=2.0 ** (low - 1)).log2()
        index = ((stops - low) * BINS_PER_STOP).floor().long().clamp(0, bins - 1)
        counts += torch.bincount(index, minlength=bins)
    return tuple((counts / pixels).tolist())
