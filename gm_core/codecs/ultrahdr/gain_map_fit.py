"""From an SDR base and an HDR picture to the codes and parameters of a gain map."""

from __future__ import annotations

import logging
import math
from dataclasses import replace

import numpy as np
from PIL import Image

from ...color import rgb_to_rgb
from ..icc import srgb_table
from ..image import row_blocks
from .gain_map_metadata import GainMapMetadata, same
from .iso21496 import exact

logger = logging.getLogger(__name__)

OFFSET = 1 / 64
# Light to aim for where hdr has none. Compression of the map leaves errors of some hundredths of OFFSET,
# which PQ magnifies most of all at black. Readers clip what falls below 0, so aimed here nearly all vanish.
_BELOW_BLACK = -OFFSET / 10
# Share of the values that may be clipped for a finer scale, if only compression made them so low.
_NOISE = 1e-3
# Gains beyond this are clipped; they are 30000 times SDR white on white, 500 times on black.
_MAX_STOPS = 15.0
_MIN_RANGE, _MIN_CAPACITY = 2**-10, 2**-6
_TABLE = 1023
# How much wider a range may become for one code to mean a gain of 1.
_MOST_WIDENED = 1.02


def log_gains(
    base: np.ndarray, hdr: np.ndarray, primaries: str, hdr_primaries: str
) -> tuple[np.ndarray, float]:
    """log2((hdr + K) / (linear base + K)) in `hdr_primaries` as float32 [H,W,3], and the largest hdr value.

    base: uint8 [H,W,3] sRGB codes in `primaries`. hdr: [H,W,3] linear light in `hdr_primaries`. Where it is
    0 or less, the gain leads slightly below 0.
    """
    offset, linear = np.float32(OFFSET), srgb_table()
    stops = np.log2(linear + offset)
    matrix = rgb_to_rgb(primaries, hdr_primaries).numpy().astype(np.float32)
    gains, peak = np.empty(hdr.shape, np.float32), 0.0
    for rows in row_blocks(*hdr.shape[:2]):
        peak = max(peak, float(hdr[rows].max()))
        light = np.where(hdr[rows] > 0, hdr[rows], np.float32(_BELOW_BLACK))
        if primaries == hdr_primaries:
            base_stops = stops[base[rows]]
        else:
            base_stops = np.log2(linear[base[rows]] @ matrix.T + offset)
        np.subtract(np.log2(light + offset), base_stops, out=gains[rows])
    return gains, peak


def clip_stops(gains: np.ndarray) -> np.ndarray:
    """Log gains cut, in place, to what the metadata may state; says so where that darkens the picture."""
    beyond = int(np.count_nonzero(gains > _MAX_STOPS))
    if beyond:
        logger.warning(
            "Ultra HDR: %d of %d values would need a gain beyond 2^%g and come out darker than they are; "
            "lower the peak of the HDR picture or brighten the SDR picture there",
            beyond,
            gains.size,
            _MAX_STOPS,
        )
    return np.clip(gains, -_MAX_STOPS, _MAX_STOPS, out=gains)


def clip_noise(gains: np.ndarray, lowest: float) -> np.ndarray:
    """Log gains raised, in place, to the lowest that matter.

    lowest: the least gain that the picture itself asks for, before its base was compressed. A few pixels
    beside edges ask for less, to undo that compression. They would cost all others up to a third of the
    precision at low gains, which dark pixels show most.
    """
    return np.maximum(gains, min(lowest, float(np.quantile(gains[::4, ::4], _NOISE))), out=gains)


def shrink(gains: np.ndarray, scale: int) -> np.ndarray:
    """Area mean at 1/scale of the size, rounded up; the map covers the picture edge to edge."""
    if scale == 1:
        return gains
    height, width = gains.shape[:2]
    size = (-(-width // scale), -(-height // scale))
    planes = (Image.fromarray(np.ascontiguousarray(gains[..., channel])) for channel in range(3))
    return np.stack([np.asarray(plane.resize(size, Image.Resampling.BOX)) for plane in planes], axis=-1)


def fit(gains: np.ndarray, peak: float, gamma: float, *, use_base_primaries: bool = True) -> GainMapMetadata:
    """The tight common range of all channels, in values that both metadata kinds hold exactly."""
    low = float(gains.min())
    high = max(float(gains.max()), low + _MIN_RANGE)
    if low < 0 < high:
        low, high, gamma = _align_zero(low, high, gamma)
    return GainMapMetadata(
        same(exact(low)),
        same(exact(high)),
        gamma=same(exact(gamma)),
        capacity_max=_capacity(peak),
        use_base_primaries=use_base_primaries,
    )


def _capacity(peak: float) -> float:
    return exact(min(max(math.log2(max(peak, 1.0)), _MIN_CAPACITY), _MAX_STOPS))


def _align_zero(low: float, high: float, gamma: float) -> tuple[float, float, float]:
    """A range hardly wider, and a gamma, with which one code means a gain of exactly 1.

    Else black, which base and hdr share, would be lifted by up to half a step: 0.05 nits at qmax 99.
    libultrahdr looks gains up in 1024 entries, so a gamma other than 1 is bent to land on one of them.
    """
    share = -low / (high - low)
    # The end nearer to zero gives way: the other would have to move by many steps.
    outward = math.ceil if share < 0.5 else math.floor
    nearest = outward(255 * share**gamma)
    code = min(max(nearest, 1), 254)
    aligned = (code / 255) ** (1 / gamma)
    # Under a gamma far from 1, single codes span many stops: then it gives way, not the range.
    if nearest > 0 and max((1 - share) / (1 - aligned), share / aligned) < _MOST_WIDENED:
        share = aligned
    if gamma != 1:
        share = min(outward(_TABLE * share), _TABLE - 1) / _TABLE
        gamma = math.log(code / 255) / math.log(share)
    if outward is math.ceil:
        return -share * high / (1 - share), high, gamma
    return low, -low * (1 - share) / share, gamma


def with_decoded_peak(metadata: GainMapMetadata, base: np.ndarray, stored: np.ndarray) -> GainMapMetadata:
    """The capacity raised to the peak that compression left, else partial headroom would be overshot.

    base, stored: decoded codes of both pictures. Left as it is where they differ in size or primaries.
    """
    if stored.shape != base.shape or not metadata.use_base_primaries:
        return metadata
    occurs = np.zeros(1 << 16, bool)
    for rows in row_blocks(*base.shape[:2]):
        occurs[base[rows].astype(np.uint16) << 8 | stored[rows]] = True
    gains = metadata.gain(np.arange(256, dtype=np.float32) / 255, channel=0)
    table = (srgb_table()[:, None] + OFFSET) * gains - OFFSET
    peak = float(table.reshape(-1)[occurs].max())
    return replace(metadata, capacity_max=max(_capacity(peak), metadata.capacity_max))


def quantise_gains(gains: np.ndarray, metadata: GainMapMetadata) -> np.ndarray:
    """uint8 codes of a map of log2 gains."""
    low, high, gamma = metadata.minimum[0], metadata.maximum[0], metadata.gamma[0]
    codes = np.empty(gains.shape, np.uint8)
    for rows in row_blocks(*gains.shape[:2]):
        share = np.clip((gains[rows] - np.float32(low)) * np.float32(1 / (high - low)), 0, 1)
        if gamma != 1:
            share **= np.float32(gamma)
        codes[rows] = share * np.float32(255) + np.float32(0.5)
    return codes
