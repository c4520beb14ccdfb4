"""From the small map that a model painted to the gain map of the whole picture.

The curves that the tone net inferred are averaged with those that the UNet painted and, smoothed, applied to
the picture's own pixels. Added is what no curve can know: how bright clipped areas were, as the highlight net
says, and which colour they had, as the tint net says.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..errors import GainMapError
from ..gain_coding import GainCoding
from ..model_info import GainMapModelInfo
from ..resample import ROWS_PER_STRIP, resized_rows, upsample_gain_map
from .clipping import NEAR_WHITE, even_whiteness
from .curves import KNOTS, ToneCurves, fit_curves
from .highlights import WHITE_CLUE, HighlightNet, bolder, highlight_clues, highlight_share
from .look import FINER, fine_look_at, look_at
from .net import ToneNet
from .statistics import picture_statistics
from .tints import TintNet, belief, tint_clues, tinted_share

INFERRED_SHARE = 0.95
"""Weight of the curves that the net infers beside those that the UNet painted."""
NOTHING_LOST, SOMETHING_LOST = 0.1, 0.2
"""Stops that curves give white beyond mid-tones: up to the first, white is paper or paint; from the second,
it may be anything, and the highlight net judges.
"""


def tone_consensus(painted: ToneCurves, inferred: ToneCurves) -> ToneCurves:
    """Between what the map says and what the statistics say: each errs where the other does not."""
    return ToneCurves(
        torch.lerp(painted.by_channel, inferred.by_channel, INFERRED_SHARE),
        torch.lerp(painted.by_largest, inferred.by_largest, INFERRED_SHARE),
    )


def highlight_stops(net: HighlightNet | None, look: Tensor, curves: ToneCurves) -> Tensor:
    """Stops `[B,1,h,w]`, small, that white pixels gain beyond the curves, by the `look_at` of a picture."""
    if net is None:
        return look.new_zeros(len(look), 1, 1, 1)
    clues = highlight_clues(look, curves.gain(look).mean(dim=1, keepdim=True))
    return lost_light(curves) * bolder(net(clues), clues[:, WHITE_CLUE, None])


def tint_stops(net: TintNet | None, look: Tensor, curves: ToneCurves) -> Tensor:
    """Stops `[B,3,h,w]`, small, that clipped channels gain beside others, by the `look_at` of a picture."""
    if net is None:
        return look.new_zeros(len(look), 3, 1, 1)
    clues = tint_clues(look, curves.gain(look))
    return lost_light(curves) * belief(clues) * net(clues)


def evened(stops: Tensor, fine_look: Tensor) -> Tensor:
    """Stops `[B,C,*,*]` of a net as far as what is around is white, `[B,C,h,w]`, by the values of a picture's
    `fine_look_at`, `[B,C,h*FINER,w*FINER]`.
    """
    even = even_whiteness(fine_look, FINER)
    return interpolate(stops, size=even.shape[-2:], mode="bilinear") * even


def lost_light(curves: ToneCurves) -> Tensor:
    """`[B,1,1,1]`, 0 where the curves say that a picture was drawn, or its camera clipped nothing, else 1.

    The nets for clipped areas see too little of a picture to tell a white button from a lamp.
    """
    grey = curves.by_channel + curves.by_largest
    rise = grey[:, -1] - grey[:, KNOTS // 2]
    return ((rise - NOTHING_LOST) / (SOMETHING_LOST - NOTHING_LOST)).clamp(0, 1)[:, None, None, None]


def gain_with_highlights(curves: ToneCurves, sdr: Tensor, bright: Tensor) -> Tensor:
    """What curves and highlights give a picture.

    No channel of a white pixel gains less than it would just short of white, or areas would have dark rims.

    Args:
        curves: of the picture.
        sdr: `[B,3,H,W]`.
        bright: `[B,3,H,W]` or `[B,1,H,W]` stops beyond the curves, 0 where nothing is white.

    Returns:
        `[B,3,H,W]` stops.
    """
    short_of_white = curves.cautious_gain(sdr.clamp(max=NEAR_WHITE))
    return torch.maximum(curves.cautious_gain(sdr) + bright, short_of_white)


def full_size_map(
    small: Tensor, sdr: Tensor, *, coding: GainCoding, net: ToneNet | None = None, strength: float = 1.0
) -> Tensor:
    """Brings the map that a model painted to the size of its SDR picture.

    Args:
        small: `[B,3,h,w]` coded gain map in [0,1].
        sdr: `[B,3,H,W]` display-encoded, [0,1].
        coding: the model's coding; log2 if there is a tone net.
        net: the model's tone net, if it has one.
        strength: how far tones are corrected: 0 = the painted map along the picture's edges, 1 = all the way.

    Returns:
        Coded gain map `[B,3,H,W]` float32 in [0,1].

    Raises:
        GainMapError: the coding is linear, in which a tone net's stops can't be added.
    """
    if net is None or strength == 0:
        return upsample_gain_map(small, sdr)
    corrected = corrected_map(small, sdr, coding=coding, net=net)
    return corrected if strength == 1 else upsample_gain_map(small, sdr).lerp_(corrected, strength)


def finished_gain_map(
    small: Tensor, sdr: Tensor, info: GainMapModelInfo, *, net: ToneNet | None = None, strength: float = 1.0
) -> Tensor:
    """From the coded map `[B,3,h,w]` that a model painted to the gain map `[B,3,H,W]` of Eq. (1), no darker
    than the model's coding allows. Other arguments and errors as `full_size_map`.
    """
    coded = full_size_map(small, sdr, coding=info.coding, net=net, strength=strength)
    return info.coding.to_gain_map(coded, spec=info.spec, sdr=sdr)


def corrected_map(small: Tensor, sdr: Tensor, *, coding: GainCoding, net: ToneNet) -> Tensor:
    """The map on the tone curves that it and the statistics of its SDR picture agree on, at full size.

    Greys that are not white stay grey, for channels of equal value get equal gain. Arguments as
    `full_size_map`.
    """
    if coding.encoding != "log2":
        raise GainMapError("tone correction needs a log2-coded gain map; this model's is linear")
    span = coding.log2_max - coding.log2_min
    seen = interpolate(sdr.float(), size=small.shape[-2:], mode="bilinear", antialias=True)
    gain = small.float() * span + coding.log2_min
    curves = tone_consensus(fit_curves(seen, gain), net(picture_statistics(sdr))).rising()
    look, fine_look = look_at(sdr), fine_look_at(sdr)
    beyond = evened(highlight_stops(net.highlights, look, curves), fine_look.amax(dim=1, keepdim=True))
    tints = evened(tint_stops(net.tints, look, curves), fine_look)
    curves = curves.smoothed()
    height, width = sdr.shape[-2:]
    coded = sdr.new_empty(sdr.shape, dtype=torch.float32)
    for top in range(0, height, ROWS_PER_STRIP):
        strip = sdr[:, :, top : top + ROWS_PER_STRIP].float()
        small_to_strip = lambda stops: resized_rows(stops, top, strip.shape[-2], height, width)  # noqa: E731, B023
        bright = highlight_share(strip) * small_to_strip(beyond) + tinted_share(strip) * small_to_strip(tints)
        stops = gain_with_highlights(curves, strip, bright)
        coded[:, :, top : top + ROWS_PER_STRIP] = (stops - coding.log2_min) / span
    return coded.clamp_(0, 1)
