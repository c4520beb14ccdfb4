"""How bright the clipped areas of a picture really were, told from what surrounds them.

A tone curve gives everything white one gain, and sun, lamp and bright cloud become evenly bright areas. Not
their value tells them apart but their place: how large the area is, how steeply its surroundings rise towards
it, whether it hangs in the sky or stands in a room. `HighlightNet` sees the picture at a small size and
answers with stops, smooth and without colour, that are added where a pixel is white and nowhere else.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from .clipping import over, white_share, whiteness
from .look import STEP, SURROUNDINGS, surroundings
from .small_unet import SmallUNet

CLUES = 6
WHITE_CLUE, GAIN_CLUE = 3, 5
"""Of the clues, where the one about white in any channel and the one about stops are."""
WIDTHS = (32, 64, 96, 128)
"""Channels at each size of the net, from the largest to the smallest."""
COLOURED, PALE = 0.2, 0.8
"""Values of the smallest channel between which a clipped pixel becomes pale, so that it may be a lamp."""
BOLDNESS = 1.4
"""By how much differences between clipped areas exceed the net's answers."""


def highlight_clues(sdr: Tensor, gain: Tensor) -> Tensor:
    """What the net sees of a picture.

    Args:
        sdr: `[B,3,h,w]` display-encoded, [0,1], as `look_at` gives it.
        gain: `[B,1,h,w]` stops that the tone curves give its pixels.

    Returns:
        `[B,CLUES,h/4,w/4]`: colour, how much is white in one channel and in all, stops.
    """
    all_white = whiteness(sdr.amin(dim=1, keepdim=True))
    clues = torch.cat([sdr - 0.5, white_share(sdr), all_white, gain / 4], dim=1)
    return avg_pool2d(clues, STEP)


def highlight_share(sdr: Tensor) -> Tensor:
    """How far highlights count in each pixel of a picture `[B,3,H,W]`, `[B,1,H,W]` in [0,1]: as far as it is
    clipped and pale. Of a deep colour one channel clips alone, and was barely over; with a lamp's stops an
    edge would run through blue skies where blue ends.
    """
    paleness = (sdr.amin(dim=1, keepdim=True) - COLOURED) / (PALE - COLOURED)
    return over(sdr.amax(dim=1, keepdim=True)) * paleness.clamp(0, 1)


def bolder(stops: Tensor, white: Tensor) -> Tensor:
    """Stops `[B,1,h,w]` with larger differences and the same mean over what is white, `white` `[B,1,h,w]`.

    The net was fitted in stops. The light of a mean of stops is less than the mean of the light that may have
    been there, so lamps come out too dim by the very doubt about them.
    """
    dims = (1, 2, 3)
    mean = (white * stops).sum(dims, keepdim=True) / white.sum(dims, keepdim=True).clamp(min=1e-6)
    return mean + BOLDNESS * (stops - mean)


class HighlightNet(SmallUNet):
    """Clues to stops beyond the tone curves, starting at "none"."""

    def __init__(self, *, dropout: float = 0.0) -> None:
        super().__init__(CLUES + len(SURROUNDINGS) + 1, 1, WIDTHS, dropout=dropout)

    def forward(self, clues: Tensor) -> Tensor:
        """`[B,CLUES,h,w]` to `[B,1,h,w]` stops."""
        return super().forward(torch.cat([clues, *surroundings(clues[:, WHITE_CLUE, None])], dim=1))
