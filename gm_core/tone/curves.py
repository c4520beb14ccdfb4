"""Curves that give every tone of a picture its gain, and the curves that a gain map follows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .clipping import white_share
from .knots import hat_position, smoothed

KNOTS = 17
"""Values in [0,1], equidistant, at which a curve is known."""
SMOOTH_STEPS = 16
"""Parts that a smooth curve has between two of them."""
RIDGE = 1e-3
MAY_CLIP, OTHERS_SHARE = 0.85, 0.5
"""Value from which a channel may be clipping, and how much the other two have to say when it does."""
COLOURED, PALE = 0.5, 0.85
"""Values of the smallest channel between which a clipped pixel becomes pale: its hue means nothing."""


@dataclass(frozen=True)
class ToneCurves:
    """Gain in stops at equidistant values, straight between them: by a channel's own value, and by the
    largest channel's. Their sum is a pixel's gain. Both `[B,KNOTS]`, or more when smoothed.
    """

    by_channel: Tensor
    by_largest: Tensor

    def gain(self, sdr: Tensor) -> Tensor:
        """Stops `[B,3,H,W]` of a picture `[B,3,H,W]` in [0,1]."""
        largest = sdr.amax(dim=1, keepdim=True)
        return _read(self.by_channel, sdr) + _read(self.by_largest, largest)

    def cautious_gain(self, sdr: Tensor) -> Tensor:
        """`gain`, but what a channel's curve says of white counts only as far as its pixel is white.

        A curve rises steeply to white, for there are the lamps. A channel that clips alone was barely
        over: with a lamp's gain it would put coloured fringes around suns and tint bright walls. Where all
        are bright when one clips, all gain as the smallest does, and the pixel keeps its pale colour.
        """
        own = _read(self.by_channel, sdr)
        others = (sdr.sum(dim=1, keepdim=True) - sdr) / 2
        shared = torch.minimum(torch.lerp(sdr, others, OTHERS_SHARE), sdr)
        smallest = sdr.amin(dim=1, keepdim=True)
        paleness = ((smallest - COLOURED) / (PALE - COLOURED)).clamp(0, 1) * white_share(sdr)
        shared = torch.lerp(shared, smallest.expand_as(sdr), paleness)
        nearness = ((sdr - MAY_CLIP) / (1 - MAY_CLIP)).clamp(0, 1)
        own = own.lerp(torch.minimum(own, _read(self.by_channel, shared)), nearness)
        return own + _read(self.by_largest, sdr.amax(dim=1, keepdim=True))

    def rising(self) -> ToneCurves:
        """The same up to the mid-tones; above them a grey's gain is at least 0 stops and never falls.

        Cameras compress highlights and do not expand them: a lamp is no darker than the wall it lights.
        """
        grey = self.by_channel + self.by_largest
        upper = grey[:, KNOTS // 2 :].clamp(min=0).cummax(dim=1).values
        lifted = torch.cat([grey[:, : KNOTS // 2], upper], dim=1)
        return ToneCurves(self.by_channel, self.by_largest + lifted - grey)

    def smoothed(self) -> ToneCurves:
        """Without the kinks at the knots, which no camera has. A grey's gain rises where it rose."""
        grey, by_channel = (
            smoothed(curve, SMOOTH_STEPS) for curve in (self.by_channel + self.by_largest, self.by_channel)
        )
        return ToneCurves(by_channel, grey - by_channel)


def _read(curve: Tensor, value: Tensor) -> Tensor:
    below, share = hat_position(value, curve.shape[1])
    flat = below.flatten(1)
    low, high = curve.gather(1, flat).view_as(value), curve.gather(1, flat + 1).view_as(value)
    return torch.lerp(low, high, share)


def fit_curves(sdr: Tensor, gain: Tensor) -> ToneCurves:
    """The curves that explain most of a gain map.

    Args:
        sdr: `[B,3,h,w]` in [0,1].
        gain: `[B,3,h,w]` stops.

    Returns:
        Least-squares curves, with a slight preference for small gains where the picture has no such value.
    """
    largest = sdr.amax(dim=1, keepdim=True).expand_as(sdr)
    basis = torch.cat([_hats(sdr.flatten(1)), _hats(largest.flatten(1))], dim=2)
    pixels = basis.shape[1]
    normal = basis.mT @ basis / pixels + RIDGE * torch.eye(2 * KNOTS, dtype=basis.dtype, device=basis.device)
    right = basis.mT @ gain.flatten(1)[..., None] / pixels
    by_channel, by_largest = torch.linalg.solve(normal, right)[..., 0].split(KNOTS, dim=1)
    return ToneCurves(by_channel, by_largest)


def _hats(value: Tensor) -> Tensor:
    """`[B,N]` to the hat functions' values `[B,N,KNOTS]`."""
    below, share = hat_position(value, KNOTS)
    basis = value.new_zeros(*value.shape, KNOTS)
    basis.scatter_(2, below[..., None], (1 - share)[..., None])
    return basis.scatter_(2, below[..., None] + 1, share[..., None])
