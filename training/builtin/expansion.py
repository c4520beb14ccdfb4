"""The standard's expansion, which looks at no picture: what a model has to beat."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gm_core.color import luminance, srgb_to_linear

SDR_NITS, HDR_NITS = 100.0, 1000.0
SYSTEM_GAMMA = 2.4
LOW, MIDDLE, HIGH = 1.0770, (-1.1510, 2.7811, -0.6302), (0.5, 0.5)
"""The tone curve's three parts: a slope, a parabola `a x^2 + b x + c`, a straight line `a x + b`."""
LOW_END, HIGH_START = 0.7399, 0.9909
"""Perceived HDR brightness at which the parts meet."""


def perceptual_base(nits: float) -> float:
    """Base of the logarithm in which a display of that peak is perceived as even."""
    return 1 + 32 * (nits / 10_000) ** (1 / SYSTEM_GAMMA)


def bt2446_a(sdr: Tensor) -> Tensor:
    """HDR of 1,000 cd/m2 by the inverse tone mapping of ITU-R BT.2446-1, method A.

    Colours keep their hue: all channels are scaled as the luma is, where the standard also desaturates.

    Args:
        sdr: `[B,3,H,W]` sRGB-encoded, [0,1].

    Returns:
        `[B,3,H,W]` linear, 1.0 = SDR white, up to 10.
    """
    signal = srgb_to_linear(sdr) ** (1 / SYSTEM_GAMMA)
    luma = luminance(signal, "bt709")
    sdr_base, hdr_base = perceptual_base(SDR_NITS), perceptual_base(HDR_NITS)
    brightness = _uncompressed(torch.log1p((sdr_base - 1) * luma) / math.log(sdr_base))
    expanded = (hdr_base**brightness - 1) / (hdr_base - 1)
    return HDR_NITS / SDR_NITS * (signal * expanded / luma.clamp(min=1e-6)) ** SYSTEM_GAMMA


def _uncompressed(brightness: Tensor) -> Tensor:
    """Perceived brightness on the SDR display to that on the HDR display."""
    a, b, c = MIDDLE
    root = (b * b - 4 * a * (c - brightness)).clamp(min=0).sqrt()
    slope, start = HIGH
    straight = torch.where(
        brightness < slope * HIGH_START + start, (root - b) / (2 * a), (brightness - start) / slope
    )
    return torch.where(brightness < LOW * LOW_END, brightness / LOW, straight)
