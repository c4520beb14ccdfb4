"""Three mantissas that share one exponent, to and from linear light."""

from __future__ import annotations

import numpy as np

from ..image import row_blocks

_BIAS = 136


def to_rgbe(linear: np.ndarray) -> np.ndarray:
    """[H,W,4] uint8 of linear light [H,W,3]; negative values become 0."""
    light = np.maximum(linear, 0).astype(np.float32, copy=False)
    peak = light.max(axis=-1)
    exponent = np.frexp(peak)[1]
    # Rounding may carry the largest mantissa to 256, which takes the next exponent.
    exponent += np.ldexp(peak, 8 - exponent) >= 255.5
    exponent = np.clip(exponent, -127, 127)
    rgbe = np.empty((*light.shape[:2], 4), np.uint8)
    mantissa = np.ldexp(light, (8 - exponent)[..., None]) + np.float32(0.5)
    rgbe[..., :3] = np.minimum(mantissa, 255)
    rgbe[..., 3] = exponent + 128
    rgbe[peak < 2.0**-126] = 0
    return rgbe


def from_rgbe(rgbe: np.ndarray) -> np.ndarray:
    """[H,W,3] float32 linear light of [H,W,4] uint8."""
    scale = np.ldexp(np.float32(1), np.arange(256) - _BIAS).astype(np.float32)
    scale[0] = 0
    out = np.empty((*rgbe.shape[:2], 3), np.float32)
    for rows in row_blocks(*rgbe.shape[:2]):
        np.multiply(rgbe[rows, :, :3], scale[rgbe[rows, :, 3]][..., None], out=out[rows])
    return out
