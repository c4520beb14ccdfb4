"""From the small map that a model painted to the gain map of the whole picture.

The curves of a picture's `ToneReading` are applied, smoothed, to its own pixels. Added is what it says of
clipped areas, where they are.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..gain_coding import GainCoding
from ..model_info import GainMapModelInfo
from ..resample import ROWS_PER_STRIP, resized_rows, upsample_gain_map
from .clipping import NEAR_WHITE, even_whiteness
from .curves import ToneCurves
from .highlights import highlight_share
from .look import FINER, fine_look_at
from .net import ToneNet
from .reading import ToneReading, read_tones
from .tints import tinted_share


def evened(stops: Tensor, fine_look: Tensor) -> Tensor:
    """Stops `[B,C,*,*]` of a net as far as what is around is white, `[B,C,h,w]`, by the values of a picture's
    `fine_look_at`, `[B,C,h*FINER,w*FINER]`.
    """
    even = even_whiteness(fine_look, FINER)
    return interpolate(stops, size=even.shape[-2:], mode="bilinear") * even


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
    small: Tensor,
    sdr: Tensor,
    *,
    coding: GainCoding,
    net: ToneNet | None = None,
    strength: float = 1.0,
    reading: ToneReading | None = None,
) -> Tensor:
    """Brings the map that a model painted to the size of its SDR picture.

    Args:
        small: `[B,3,h,w]` coded gain map in [0,1].
        sdr: `[B,3,H,W]` display-encoded, [0,1].
        coding: the model's coding; log2 if there is a tone net.
        net: the model's tone net, if it has one.
        strength: how far tones are corrected: 0 = the painted map along the picture's edges, 1 = all the way.
        reading: of the picture, if its tones were read before.

    Returns:
        Coded gain map `[B,3,H,W]` float32 in [0,1].

    Raises:
        GainMapError: the coding is linear, in which a tone net's stops can't be added.
    """
    if net is None or strength == 0:
        return upsample_gain_map(small, sdr)
    corrected = corrected_map(sdr, reading or read_tones(small, sdr, coding=coding, net=net), coding)
    return corrected if strength == 1 else upsample_gain_map(small, sdr).lerp_(corrected, strength)


def finished_gain_map(
    small: Tensor,
    sdr: Tensor,
    info: GainMapModelInfo,
    *,
    net: ToneNet | None = None,
    strength: float = 1.0,
    reading: ToneReading | None = None,
) -> Tensor:
    """From the coded map `[B,3,h,w]` that a model painted to the gain map `[B,3,H,W]` of Eq. (1), no darker
    than the model's coding allows. Other arguments and errors as `full_size_map`.
    """
    coded = full_size_map(small, sdr, coding=info.coding, net=net, strength=strength, reading=reading)
    return info.coding.to_gain_map(coded, spec=info.spec, sdr=sdr)


def corrected_map(sdr: Tensor, reading: ToneReading, coding: GainCoding) -> Tensor:
    """Coded map `[B,3,H,W]` of what was read of a picture `[B,3,H,W]`.

    Greys that are not white stay grey, for channels of equal value get equal gain.
    """
    curves, fine_look = reading.curves.smoothed(), fine_look_at(sdr)
    beyond = evened(reading.highlights, fine_look.amax(dim=1, keepdim=True))
    tints = evened(reading.tints, fine_look)
    height, width = sdr.shape[-2:]
    span = coding.log2_max - coding.log2_min
    coded = sdr.new_empty(sdr.shape, dtype=torch.float32)
    for top in range(0, height, ROWS_PER_STRIP):
        strip = sdr[:, :, top : top + ROWS_PER_STRIP].float()
        small_to_strip = lambda stops: resized_rows(stops, top, strip.shape[-2], height, width)  # noqa: E731, B023
        bright = highlight_share(strip) * small_to_strip(beyond) + tinted_share(strip) * small_to_strip(tints)
        stops = gain_with_highlights(curves, strip, bright)
        coded[:, :, top : top + ROWS_PER_STRIP] = (stops - coding.log2_min) / span
    return coded.clamp_(0, 1)
