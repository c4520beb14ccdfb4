"""RandomExposureAdjust of Stage 1: what a badly exposed camera would have made of an SDR picture.

The camera curve is the sigmoid of Eilertsen et al. 2017, y = (1 + sigma) x^n / (x^n + sigma).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

EXPOSURES = (0.1, 0.25, 0.5, 1.0, 4.0, 8.0, 16.0)


class ExposureChange(NamedTuple):
    """One change per sample, each [B]; sigma = 0 leaves its sample as it is."""

    exposure: Tensor
    n: Tensor
    sigma: Tensor


def draw_exposure(batch: int, *, generator: torch.Generator, probability: float = 0.7) -> ExposureChange:
    """Random changes for `batch` samples on the CPU; each sample is changed with `probability`."""
    exposure = torch.tensor(EXPOSURES)[torch.randint(len(EXPOSURES), (batch,), generator=generator)]
    n = (0.65 + 0.1 * torch.randn(batch, generator=generator)).clamp(0.4, 0.9)
    sigma = (0.6 + 0.1 * torch.randn(batch, generator=generator)).clamp(0.4, 0.8)
    kept = torch.rand(batch, generator=generator) >= probability
    return ExposureChange(exposure.masked_fill(kept, 1), n.masked_fill(kept, 1), sigma.masked_fill(kept, 0))


def adjust_exposure(sdr: Tensor, change: ExposureChange, *, gamma: float = 2.2) -> Tensor:
    """Undo the camera curve, quantise to 16 bits, expose anew, clip and encode.

    Args:
        sdr: [B,3,H,W] display-encoded, clamped to [0, 1].
        change: per sample; an exposure of 1 is no identity, the camera curve still darkens mid-tones.
        gamma: power of the encoding.

    Returns:
        [B,3,H,W] float32 in [0, 1]. Carries no useful gradient.
    """
    encoded = sdr.float().clamp(0, 1)
    exposure, n, sigma = (value.to(encoded).view(-1, 1, 1, 1) for value in change)
    linear = (sigma * encoded / (1 + sigma - encoded + 1e-8)).pow(1 / n)
    linear = (linear.clamp(0, 1) * 65535).round() / 65535
    return torch.where(sigma == 0, encoded, (exposure * linear).clamp(0, 1).pow(1 / gamma))
