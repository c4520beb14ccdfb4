"""The channel order of the GM UNet's input: the paper's [SDR, gain map]. Nothing else knows it."""

from __future__ import annotations

import torch
from torch import Tensor

from .errors import GainMapError


def gm_unet_input(*, condition: Tensor, noisy_gm: Tensor) -> Tensor:
    """Input of the GM UNet, both latents in model space (scaled by 0.18215).

    Args:
        condition: [B,4,h,w] clean SDR latent; never noised and never divided by sqrt(sigma^2 + 1).
        noisy_gm: [B,4,h,w] noisy gain-map latent, scaled as the UNet expects it.

    Returns:
        [B,8,h,w].

    Raises:
        GainMapError: the two shapes differ.
    """
    if condition.shape != noisy_gm.shape:
        raise GainMapError(
            f"condition is {list(condition.shape)} but noisy_gm is {list(noisy_gm.shape)}; "
            "expected two latents [B,4,h,w] of one size"
        )
    return torch.cat([condition, noisy_gm], dim=1)


def condition_last(channels: Tensor) -> Tensor:
    """First conv [o,8,k,k], or its input [B,8,h,w], in the paper's order -> for hosts that append the
    condition; its own inverse."""
    first, second = channels.chunk(2, dim=1)
    return torch.cat([second, first], dim=1)
