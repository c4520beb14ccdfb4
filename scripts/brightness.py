"""How bright an HDR picture is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gm_core.codecs.exr import decode_exr

WHITE_NITS = 203.0
BT709_LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)


@dataclass(frozen=True)
class Brightness:
    """Highest luminance of a picture, 1.0 = SDR white."""

    peak: float

    @property
    def nits(self) -> float:
        return self.peak * WHITE_NITS

    @property
    def stops(self) -> float:
        """Stops above SDR white, 0 for a picture that does not reach it."""
        return max(0.0, math.log2(max(self.peak, 1.0)))

    def __str__(self) -> str:
        return f"peak {self.nits:.0f} nits, {self.stops:.1f} stops above SDR white"


def read_exr(path: Path) -> np.ndarray:
    """[H,W,3] linear BT.709, 1.0 = SDR white."""
    return decode_exr(path.read_bytes()).hdr


def brightness(hdr: np.ndarray) -> Brightness:
    return Brightness(peak=float((hdr @ BT709_LUMINANCE).max()))
