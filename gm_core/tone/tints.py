"""Which colour the clipped areas of a picture really had, told from what surrounds them.

A blue sky that is overexposed comes out white: blue clips first, red last. At its edges, where only some of
the channels are clipped, the sky still is blue, and a clipped area mostly goes on as its edge begins.
`TintNet` is told the colours around, carried on into the clipped area, and answers with stops that differ by
channel and are added where that channel is clipped.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from .clipping import over, white_share, whiteness
from .look import STEP, SURROUNDINGS, surroundings
from .small_unet import SmallUNet

WIDTHS = (24, 32, 48, 64)
"""Channels at each size of the net, from the largest to the smallest."""
CARRIED = 3
"""Kinds of pixels whose colours are carried on: those not clipped, bright ones, and those clipped in part."""
TINT_CLUES = 3 + 3 + 1 + 1 + 3 * CARRIED + len(SURROUNDINGS) + 1
CLIPPED_CLUES, GAIN_CLUE, FAR_WHITE_CLUE = slice(3, 6), 7, -2
"""Of the clues, where those about each channel's white, stops and white in the wider surroundings are."""
DARK, BRIGHT = 0.1, 0.75
"""Values of the largest channel from which a colour is more than noise, and from which it is bright."""
BARELY_OVER, WHOLLY_OVER = 0.6, 0.95
"""Values of the smallest channel between which those that are clipped come to have all of their tint."""
ALONE, IN_COMPANY = 0.6, 0.1
"""Share of its tint that a small white thing keeps, and how much white around makes it all."""
ENOUGH = 4.0
"""One over the share of a place from which its own colour counts alone."""


def chroma(sdr: Tensor, gain: Tensor) -> Tensor:
    """Stops of each channel's light over the mean of all three, `[B,3,h,w]`, of a picture and its gain."""
    stops = 2.2 * torch.log2(sdr.clamp(min=0.02)) + gain
    return stops - stops.mean(dim=1, keepdim=True)


def carried_on(values: Tensor, weight: Tensor) -> Tensor:
    """`values` `[B,C,h,w]` where there is `weight` `[B,1,h,w]` in [0,1]; elsewhere those of what is around,
    the nearer the more; 0 if there is no weight at all.
    """
    if min(values.shape[-2:]) == 1:
        mean = lambda x: x.mean(dim=(2, 3), keepdim=True)  # noqa: E731
        return (mean(weight * values) / mean(weight).clamp(min=1e-6)).expand_as(values)
    half = lambda x: avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)  # noqa: E731
    coarse_weight = half(weight)
    coarse = carried_on(half(weight * values) / coarse_weight.clamp(min=1e-6), coarse_weight)
    around = interpolate(coarse, size=values.shape[-2:], mode="bilinear")
    return torch.lerp(around, values, (ENOUGH * weight).clamp(max=1))


def tint_clues(sdr: Tensor, gain: Tensor) -> Tensor:
    """What the net sees of a picture.

    Args:
        sdr: `[B,3,h,w]` display-encoded, [0,1], as `look_at` gives it.
        gain: `[B,3,h,w]` stops that the tone curves give its pixels.

    Returns:
        `[B,TINT_CLUES,h/4,w/4]`: colour, how far each channel and all are clipped, stops, the colours carried
        on, how much is clipped around.
    """
    some_clipped, all_clipped = white_share(sdr), whiteness(sdr.amin(dim=1, keepdim=True))
    clues = torch.cat([sdr - 0.5, whiteness(sdr), all_clipped, gain.mean(dim=1, keepdim=True) / 4], dim=1)
    seen, largest = avg_pool2d(clues, STEP), sdr.amax(dim=1, keepdim=True)
    not_clipped = (largest > DARK) * (1 - some_clipped)
    bright = (largest > BRIGHT) * (1 - all_clipped)
    clipped_in_part = some_clipped * (1 - all_clipped)
    colours = chroma(sdr, gain)
    carried = [_carried_at_places(colours, weight) for weight in (not_clipped, bright, clipped_in_part)]
    return torch.cat([seen, *carried, *surroundings(seen[:, CLIPPED_CLUES].amax(dim=1, keepdim=True))], dim=1)


def _carried_at_places(colours: Tensor, weight: Tensor) -> Tensor:
    share = avg_pool2d(weight, STEP)
    return carried_on(avg_pool2d(weight * colours, STEP) / share.clamp(min=1e-6), share)


def belief(clues: Tensor) -> Tensor:
    """How far what is clipped takes its surroundings' colour, `[B,1,h,w]` of the clues `[B,TINT_CLUES,h,w]`.

    A large white area mostly is what it borders on, a sky; a small one often is a reflex of something else.
    """
    white = clues[:, FAR_WHITE_CLUE, None]
    return torch.lerp(torch.full_like(white, ALONE), torch.ones_like(white), (white / IN_COMPANY).clamp(0, 1))


def tinted_share(sdr: Tensor) -> Tensor:
    """How far tints count in each channel of a picture `[B,3,H,W]`, in [0,1]: as far as it is clipped and the
    others are bright. A channel that clips alone was barely over; with the tint of a whole sky it would draw
    a violet ring around each sun.
    """
    smallest = sdr.amin(dim=1, keepdim=True)
    return over(sdr) * ((smallest - BARELY_OVER) / (WHOLLY_OVER - BARELY_OVER)).clamp(0, 1)


class TintNet(SmallUNet):
    """Clues to stops that differ by channel, starting at "none"."""

    def __init__(self, *, dropout: float = 0.0) -> None:
        super().__init__(TINT_CLUES, 3, WIDTHS, dropout=dropout)

    def forward(self, clues: Tensor) -> Tensor:
        """`[B,TINT_CLUES,h,w]` to `[B,3,h,w]` stops, 0 in the mean of the channels."""
        stops = super().forward(clues)
        return stops - stops.mean(dim=1, keepdim=True)
