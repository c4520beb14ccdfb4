"""Where a picture is white, so that nobody knows how bright it was."""

from __future__ import annotations

from torch import Tensor

NEAR_WHITE, WHITE = 0.965, 0.995
"""Values of the largest channel between which a pixel becomes white. Noise and JPEG blur the end."""


def whiteness(value: Tensor) -> Tensor:
    """0 up to `NEAR_WHITE`, 1 from `WHITE`."""
    return ((value - NEAR_WHITE) / (WHITE - NEAR_WHITE)).clamp(0, 1)


def white_share(sdr: Tensor) -> Tensor:
    """How far each pixel of `[B,3,H,W]` in [0,1] is clipped in any channel, `[B,1,H,W]` in [0,1]."""
    return whiteness(sdr.amax(dim=1, keepdim=True))
