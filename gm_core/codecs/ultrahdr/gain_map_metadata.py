"""How a stored gain map becomes a gain: the parameters shared by ISO 21496-1, hdrgm XMP and Apple."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ...errors import ImageReadError

MAX_STOPS = 16.0
APPLE_GAMMA = 1.961


@dataclass(frozen=True)
class GainMapMetadata:
    """hdr = (base + offset_sdr) * 2^(w * (min + (max - min) * map^(1/gamma))) - offset_hdr, linear light.

    minimum, maximum: log2 gain at map 0 and 1. capacity_min, capacity_max: log2 display headroom where
    the weight w becomes 0 and 1. Tuples hold one value per channel R, G, B.
    use_base_primaries: the formula works in the primaries of the base, not of the map's ICC profile.
    source: "iso", "xmp" or "apple"; Apple's gain is linear in the map: 1 + (2^max - 1) * map^1.961.
    """

    minimum: tuple[float, float, float]
    maximum: tuple[float, float, float]
    gamma: tuple[float, float, float] = (1.0, 1.0, 1.0)
    offset_sdr: tuple[float, float, float] = (1 / 64, 1 / 64, 1 / 64)
    offset_hdr: tuple[float, float, float] = (1 / 64, 1 / 64, 1 / 64)
    capacity_min: float = 0.0
    capacity_max: float = 1.0
    use_base_primaries: bool = True
    source: str = "iso"

    def __post_init__(self) -> None:
        stops = (*self.minimum, *self.maximum, self.capacity_min, self.capacity_max)
        offsets = (*self.offset_sdr, *self.offset_hdr)
        _check(all(abs(value) <= MAX_STOPS for value in stops), f"a gain or headroom beyond 2^{MAX_STOPS:g}")
        _check(all(abs(value) <= 1 for value in offsets), "an offset beyond 1")
        _check(all(0.01 <= value <= 100 for value in self.gamma), "a gamma outside 0.01 to 100")
        _check(
            all(a <= b for a, b in zip(self.minimum, self.maximum, strict=True)),
            "a minimum above its maximum",
        )
        _check(self.capacity_min <= self.capacity_max, "a minimum headroom above its maximum")

    @property
    def per_channel(self) -> bool:
        """Whether the channels differ."""
        values = (self.minimum, self.maximum, self.gamma, self.offset_sdr, self.offset_hdr)
        return any(len(set(value)) > 1 for value in values)

    def weight(self, headroom: float | None) -> float:
        """Share of the gain to apply for a display of this linear headroom; None = all of it."""
        stops = math.inf if headroom is None else math.log2(max(headroom, 1.0))
        if stops >= self.capacity_max:
            return 1.0
        if self.capacity_max == self.capacity_min:
            return 0.0
        return max(stops - self.capacity_min, 0.0) / (self.capacity_max - self.capacity_min)

    def gain(self, stored: np.ndarray, channel: int, weight: float = 1.0) -> np.ndarray:
        """float32 linear gain of stored map values in [0,1] of one channel."""
        low, high = self.minimum[channel], self.maximum[channel]
        if self.source == "apple":
            return ((1 + (2**high - 1) * stored**APPLE_GAMMA) ** weight).astype(np.float32)
        shaped = stored ** (1 / self.gamma[channel]) if self.gamma[channel] != 1 else stored
        return np.exp2(weight * (low + (high - low) * shaped)).astype(np.float32)


def same(value: float) -> tuple[float, float, float]:
    """One value for all three channels."""
    return value, value, value


def _check(holds: bool, problem: str) -> None:
    # NaN fails every comparison above, so it is refused too.
    if not holds:
        raise ImageReadError(f"gain map metadata: {problem}; the file is damaged or malicious")
