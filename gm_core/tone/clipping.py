"""Where a picture is white, so that nobody knows how bright it was."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import avg_pool2d

from ..resample import box_mean

NEAR_WHITE, WHITE = 0.965, 0.995
"""Values of the largest channel between which a pixel becomes white. Noise and JPEG blur the end."""
OVER = 0.98
"""Value from which a pixel is as white as what is around it."""
LIKE_WHITE, EVEN_RADIUS = 0.95, 1
"""Value from which a pixel is compared with the white ones around it, and how many places far they are."""
LITTLE = 1e-3


def whiteness(value: Tensor) -> Tensor:
    """0 up to `NEAR_WHITE`, 1 from `WHITE`."""
    return ((value - NEAR_WHITE) / (WHITE - NEAR_WHITE)).clamp(0, 1)


def white_share(sdr: Tensor) -> Tensor:
    """How far each pixel of `[B,3,H,W]` in [0,1] is clipped in any channel, `[B,1,H,W]` in [0,1]."""
    return whiteness(sdr.amax(dim=1, keepdim=True))


def over(value: Tensor) -> Tensor:
    """0 up to `NEAR_WHITE`, 1 from `OVER`: whether what is evenly white around a pixel counts in it."""
    return ((value - NEAR_WHITE) / (OVER - NEAR_WHITE)).clamp(0, 1)


def even_whiteness(sdr: Tensor, step: int) -> Tensor:
    """How white what is nearly white around each place is, `[B,C,h,w]` in [0,1]; 1 where nothing is.

    Stops that come with a pixel's own whiteness, seven of 255 codes, make visible blocks and bands of one
    code's difference in a sky. What is clearly darker does not count, so lamps and suns keep their edges.

    Args:
        sdr: `[B,C,h*step,w*step]` values, so fine that a small lamp is not blended with the dark around it.
        step: pixels a side that are one place.
    """
    nearly = ((sdr - LIKE_WHITE) / (NEAR_WHITE - LIKE_WHITE)).clamp(0, 1)
    places = (avg_pool2d(of, step) for of in (whiteness(sdr) * nearly, nearly))
    white, all_nearly = (box_mean(of, EVEN_RADIUS) for of in places)
    return (white + LITTLE) / (all_nearly + LITTLE)
