"""How gain is stored in a gain map that is a picture from 0 to 1."""

from __future__ import annotations

import math

from ..gm_core.gain_coding import GainCoding
from ..gm_core.gain_map import GainMapSpec

ENCODINGS = ("linear", "log2")


def picture_coding(encoding: str, spec: GainMapSpec, *, log2_min: float = 0.0) -> GainCoding:
    """One of ENCODINGS; log2 runs from `log2_min` stops, which is no gain unless given, to 1 + qmax."""
    if encoding == "linear":
        return GainCoding()
    return GainCoding("log2", log2_min, math.log2(1 + spec.qmax))
