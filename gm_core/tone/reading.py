"""What is told of a picture's tones before any of its pixels is touched.

The curves that the tone net inferred are averaged with those that the UNet painted. Beside them stands what
no curve can know: how bright clipped areas were, as the highlight net says, and which colour they had, as the
tint net says. All of it is small, so that it can be kept of every frame of a film.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from ..errors import GainMapError
from ..gain_coding import GainCoding
from .curves import KNOTS, ToneCurves, fit_curves
from .highlights import WHITE_CLUE, HighlightNet, bolder, highlight_clues
from .look import STEP, look_at
from .net import ToneNet
from .statistics import picture_statistics
from .tints import TintNet, belief, tint_clues

INFERRED_SHARE = 0.95
"""Weight of the curves that the net infers beside those that the UNet painted."""
NOTHING_LOST, SOMETHING_LOST = 0.1, 0.2
"""Stops that curves give white beyond mid-tones: up to the first, white is paper or paint; from the second,
it may be anything, and the highlight net judges.
"""
GLANCE_STEP = 4 * STEP
"""Pixels of a `look_at` that are one of a glance."""


@dataclass(frozen=True)
class ToneReading:
    """Of pictures, whose number is B.

    Attributes:
        curves: gain of every tone.
        highlights: `[B,1,h,w]` stops that white pixels gain beyond the curves.
        tints: `[B,3,h,w]` stops that clipped channels gain beside others.
        white: `[B,1,h,w]` how much is white at each of these places, in [0,1].
        glance: `[B,3,*,*]` the picture at a very small size, by which it can be told from others.
    """

    curves: ToneCurves
    highlights: Tensor
    tints: Tensor
    white: Tensor
    glance: Tensor


def read_tones(small: Tensor, sdr: Tensor, *, coding: GainCoding, net: ToneNet) -> ToneReading:
    """Reads pictures by the map that a model painted and by their own pixels.

    Args:
        small: `[B,3,h,w]` coded gain map in [0,1].
        sdr: `[B,3,H,W]` display-encoded, [0,1].
        coding: the map's coding, log2.
        net: the model's tone net.

    Raises:
        GainMapError: the coding is linear, in which a tone net's stops can't be added.
    """
    if coding.encoding != "log2":
        raise GainMapError("tone correction needs a log2-coded gain map; this model's is linear")
    seen = interpolate(sdr.float(), size=small.shape[-2:], mode="bilinear", antialias=True)
    gain = small.float() * (coding.log2_max - coding.log2_min) + coding.log2_min
    curves = tone_consensus(fit_curves(seen, gain), net(picture_statistics(sdr))).rising()
    look = look_at(sdr)
    clues = highlight_clues(look, curves.gain(look).mean(dim=1, keepdim=True))
    return ToneReading(
        curves,
        highlight_stops(net.highlights, clues, curves),
        tint_stops(net.tints, look, curves),
        clues[:, WHITE_CLUE, None],
        avg_pool2d(look, GLANCE_STEP, ceil_mode=True, count_include_pad=False),
    )


def tone_consensus(painted: ToneCurves, inferred: ToneCurves) -> ToneCurves:
    """Between what the map says and what the statistics say: each errs where the other does not."""
    return ToneCurves(
        torch.lerp(painted.by_channel, inferred.by_channel, INFERRED_SHARE),
        torch.lerp(painted.by_largest, inferred.by_largest, INFERRED_SHARE),
    )


def highlight_stops(net: HighlightNet | None, clues: Tensor, curves: ToneCurves) -> Tensor:
    """Stops `[B,1,h,w]` that white pixels gain beyond the curves, by the `highlight_clues` of a picture."""
    if net is None:
        return clues.new_zeros(len(clues), 1, *clues.shape[-2:])
    return lost_light(curves) * bolder(net(clues), clues[:, WHITE_CLUE, None])


def tint_stops(net: TintNet | None, look: Tensor, curves: ToneCurves) -> Tensor:
    """Stops `[B,3,h,w]` that clipped channels gain beside others, by the `look_at` of a picture."""
    if net is None:
        return look.new_zeros(len(look), 3, *(side // STEP for side in look.shape[-2:]))
    clues = tint_clues(look, curves.gain(look))
    return lost_light(curves) * belief(clues) * net(clues)


def lost_light(curves: ToneCurves) -> Tensor:
    """`[B,1,1,1]`, 0 where the curves say that a picture was drawn, or its camera clipped nothing, else 1.

    The nets for clipped areas see too little of a picture to tell a white button from a lamp.
    """
    grey = curves.by_channel + curves.by_largest
    rise = grey[:, -1] - grey[:, KNOTS // 2]
    return ((rise - NOTHING_LOST) / (SOMETHING_LOST - NOTHING_LOST)).clamp(0, 1)[:, None, None, None]
