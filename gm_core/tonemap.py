"""From HDR back to SDR: the operators of Stage 1, the closed form they imply, and operators for display.

HDR is linear, 1.0 = SDR white, [B,3,H,W]; results are float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from .color import apply_matrix, linear_to_srgb, luminance, rgb_to_rgb
from .gain_map import GainMapSpec, extract_gain_map

MU = 500.0
"""Constant of the paper's mu-law."""
# An infinite pixel must not turn the quotients of the curves into NaN.
_BRIGHTEST = 65504.0
# One colour per stop above SDR white: blue, cyan, green, yellow, orange, red, magenta.
_STOP_COLOURS = (
    (0.15, 0.35, 0.95),
    (0.10, 0.75, 0.90),
    (0.20, 0.80, 0.30),
    (0.95, 0.90, 0.20),
    (0.98, 0.60, 0.10),
    (0.90, 0.15, 0.10),
    (0.95, 0.30, 0.90),
)


def hard_clip_tmo(hdr: Tensor, *, qmax: float) -> Tensor:
    """Brightness-aware compression by clipping; `qmax` has no effect."""
    return hdr.float().clamp(0, 1)


def linear_scale_tmo(hdr: Tensor, *, qmax: float) -> Tensor:
    """Brightness-aware compression by scaling the peak to 1."""
    return hdr.float() / (qmax + 1)


def fix_mulog_tmo(hdr: Tensor, *, qmax: float) -> Tensor:
    """Brightness-aware compression by a mu-law curve, the paper's choice; [0, 1]."""
    return (torch.log1p(MU / (qmax + 1) * hdr.float()) / math.log1p(MU)).clamp(0, 1)


STAGE1_OPERATORS: Mapping[str, Callable[..., Tensor]] = MappingProxyType(
    {
        "hard_clip_tmo": hard_clip_tmo,
        "linear_scale_tmo": linear_scale_tmo,
        "fix_mulog_tmo": fix_mulog_tmo,
    }
)


def gamut_reduce(compressed: Tensor) -> Tensor:
    """Gamut-constrained reduction: BT.2020 -> BT.709, clipped to [0, 1].

    The paper applies the matrix to tone-mapped values; parity needs this order.
    """
    return apply_matrix(compressed, rgb_to_rgb("bt2020", "bt709")).clamp(0, 1)


def analytic_gain_map(sdr: Tensor, *, spec: GainMapSpec) -> Tensor:
    """Per-pixel minimiser of the Stage 1 reconstruction loss with `fix_mulog_tmo`.

    The HDR that Eq. (1) makes of it is to be read as BT.2020.

    Args:
        sdr: [B,3,H,W] display-encoded BT.709, clamped to [0, 1].
        spec: constants of Eq. (1).

    Returns:
        Gain map [B,3,H,W] in [0, 1].

    Raises:
        GainMapError: `sdr` has another shape.
    """
    reduced = apply_matrix(sdr.float().clamp(0, 1), rgb_to_rgb("bt709", "bt2020")).clamp_(0, 1)
    hdr = torch.expm1(reduced * math.log1p(MU)) * ((spec.qmax + 1) / MU)
    return extract_gain_map(sdr=sdr, hdr=hdr, spec=spec)


def clip(hdr: Tensor) -> Tensor:
    """What an SDR display shows: everything above SDR white is white. sRGB-encoded, [0, 1]."""
    return linear_to_srgb(hdr.float().clamp(0, 1))


def reinhard(hdr: Tensor) -> Tensor:
    """Extended Reinhard et al. 2002 on luminance; each picture's peak becomes white. sRGB-encoded, [0, 1].

    A picture without highlights comes out as it went in.
    """
    light = luminance(hdr.clamp(0, _BRIGHTEST))
    peak = light.amax(dim=(1, 2, 3), keepdim=True).clamp(min=1)
    return clip(hdr * ((1 + light / peak.square()) / (1 + light)))


def aces_like(hdr: Tensor) -> Tensor:
    """Narkowicz's 2015 fit of the ACES film curve, per channel. sRGB-encoded, [0, 1]."""
    x = hdr.float().clamp(0, _BRIGHTEST) * 0.6
    return clip(x * (2.51 * x + 0.03) / (x * (2.43 * x + 0.59) + 0.14))


def false_colour(hdr: Tensor) -> Tensor:
    """Grey up to SDR white, then one colour per stop: blue, cyan, green, yellow, orange, red, magenta."""
    light = luminance(hdr.nan_to_num())
    palette = torch.tensor(_STOP_COLOURS, device=hdr.device)
    stops = light.clamp(min=1).log2().clamp(max=len(palette) - 1).long()
    return torch.where(light > 1, palette[stops[:, 0]].movedim(-1, 1), clip(light))


DISPLAY_OPERATORS: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {"reinhard": reinhard, "aces-like": aces_like, "clip": clip, "false colour": false_colour}
)
