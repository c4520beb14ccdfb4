"""How bright a picture is, how much of it is above SDR white, and what is wrong with it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .color import convert_primaries, luminance

PERCENTILES = (1.0, 50.0, 90.0, 99.0, 99.9)
HISTOGRAM_STOPS = (-12, 8)
BINS_PER_STOP = 4
# Rounding of the luminance weights must not put plain white above white, or grey outside a gamut.
_TOLERANCE = 1e-3


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
        hdr: [B,3,H,W] linear light in `primaries`, 1.0 = SDR white; may hold NaN and infinite values.
        primaries: those of the batch, a name in `gm_core.color.PRIMARIES`.
        gamut: the primaries that colours are counted as outside of.
        white_nits: luminance of SDR white in cd/m2.

    Raises:
        GainMapError: unknown primaries or gamut.
    """
    pixels = hdr.shape[0] * hdr.shape[2] * hdr.shape[3]
    finite = torch.isfinite(hdr).all(dim=1)
    sound = hdr.movedim(1, -1)[finite].T[None, :, None]
    light = luminance(sound, primaries).flatten().clamp(min=0)
    peak = light.max().item() if len(light) else 0.0
    outside = convert_primaries(sound, primaries, gamut).amin(dim=1) < -_TOLERANCE
    top = sound.amax().item() if len(light) else 0.0
    clipped = (sound.amax(dim=1) >= top * (1 - _TOLERANCE)) & (top > 0)
    return HDRStatistics(
        pixels=pixels,
        peak_nits=peak * white_nits,
        average_nits=light.double().mean().item() * white_nits if len(light) else 0.0,
        percentile_nits=_percentiles(light, white_nits),
        stops_above_white=max(0.0, math.log2(peak)) if peak > 1 + _TOLERANCE else 0.0,
        share_above_white=_share(light > 1 + _TOLERANCE, pixels),
        clipped_share=_share(clipped, pixels),
        out_of_gamut_share=_share(outside, pixels),
        nan=int(hdr.isnan().sum()),
        infinite=int(hdr.isinf().sum()),
        negative=int((hdr < 0).sum()),
        histogram=_histogram(light, pixels),
    )


def _share(chosen: Tensor, pixels: int) -> float:
    return int(chosen.sum()) / pixels


def _percentiles(light: Tensor, white_nits: float) -> dict[float, float]:
    """Nearest rank: always the luminance of a pixel that is there."""
    if not len(light):
        return dict.fromkeys(PERCENTILES, 0.0)
    ordered = light.sort().values
    ranks = {p: max(0, math.ceil(p / 100 * len(ordered)) - 1) for p in PERCENTILES}
    return {p: ordered[rank].item() * white_nits for p, rank in ranks.items()}


def _histogram(light: Tensor, pixels: int) -> tuple[float, ...]:
    low, high = HISTOGRAM_STOPS
    bins = (high - low) * BINS_PER_STOP
    stops = light.clamp(min=2.0 ** (low - 1)).log2()
    index = ((stops - low) * BINS_PER_STOP).floor().long().clamp(0, bins - 1)
    return tuple((torch.bincount(index, minlength=bins) / pixels).tolist())
