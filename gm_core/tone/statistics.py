"""Statistics of a picture in which a camera's tone curve leaves its traces."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from ..resample import resize_to_working
from .blends import BLEND_STATISTICS, blend_statistics
from .knots import hat_position
from .slopes import SLOPE_STATISTICS, slope_statistics

STATISTICS_SIDE = 96
"""Short side in pixels of the copy on which contrasts are measured."""
COUNTED_SIDE = 512
"""Short side in pixels above which only every n-th pixel is counted."""
FINE_BINS, COARSE_BINS = 33, 16
END_BINS, END_STEP = 24, 1 / 200
"""Bins next to black and white, where clipping and a shoulder differ, and their width."""
STATISTICS = (
    (5 * FINE_BINS + COARSE_BINS + 7 * END_BINS + 1 + 3 * 2 * COARSE_BINS + 2)
    + SLOPE_STATISTICS
    + BLEND_STATISTICS
)


def soft_histogram(value: Tensor, weight: Tensor, bins: int) -> Tensor:
    """Sums `[B,bins]` of `weight` `[B,N]`, each shared linearly by the two bins next to `value` `[B,N]`."""
    below, share = hat_position(value, bins)
    sums = value.new_zeros(value.shape[0], bins)
    return sums.scatter_add_(1, below, (1 - share) * weight).scatter_add_(1, below + 1, share * weight)


def value_statistics(channels: Tensor, largest: Tensor, smallest: Tensor) -> Tensor:
    """How often each value occurs (red, green, blue, the largest and the smallest channel), and how colourful
    pixels of each brightness are. `[B,3,N]`, `[B,N]` and `[B,N]` to `[B,5 FINE_BINS + COARSE_BINS]`.
    """
    ones = torch.ones_like(largest)
    values = [*channels.unbind(1), largest, smallest]
    shares = [2 * (soft_histogram(v, ones, FINE_BINS) / ones.shape[1]).sqrt() for v in values]
    count = soft_histogram(largest, ones, COARSE_BINS) + 1
    return torch.cat([*shares, 3 * soft_histogram(largest, largest - smallest, COARSE_BINS) / count], dim=1)


def end_shares(distance: Tensor) -> Tensor:
    """How many of the values `[B,N]` lie in each of the `END_BINS` steps from an end that is `distance` away,
    `[B,END_BINS]`.
    """
    batch = len(distance)
    bins = (distance / END_STEP).long().clamp(0, END_BINS)  # The last collects all others.
    bins += (END_BINS + 1) * torch.arange(batch, device=bins.device)[:, None]
    counts = torch.bincount(bins.flatten(), minlength=batch * (END_BINS + 1)).view(batch, -1)
    return 2 * (counts[:, :-1].to(distance.dtype) / distance.shape[1]).sqrt()


def end_statistics(channels: Tensor, largest: Tensor, smallest: Tensor) -> Tensor:
    """Values next to black and to white of all channels, the largest and the smallest; those next to the
    picture's own maximum, and that maximum. `[B,3,N]`, `[B,N]` and `[B,N]` to `[B,7 END_BINS + 1]`.
    """
    maximum = largest.amax(dim=1, keepdim=True)
    shares = [end_shares(1 - largest / maximum.clamp(min=END_STEP))]
    for value in (channels.flatten(1), largest, smallest):
        shares += [end_shares(value), end_shares(1 - value)]
    return torch.cat([*shares, maximum], dim=1)


def contrast_statistics(luma: Tensor) -> Tensor:
    """Mean and root mean square difference of neighbours at each brightness, in log. `[B,1,h,w]` to
    `[B,2 COARSE_BINS]`.
    """
    pairs = [(luma[..., 1:], luma[..., :-1]), (luma[..., 1:, :], luma[..., :-1, :])]
    level = torch.cat([((a + b) / 2).flatten(1) for a, b in pairs], dim=1)
    step = torch.cat([(a - b).abs().flatten(1) for a, b in pairs], dim=1)
    count = soft_histogram(level, torch.ones_like(level), COARSE_BINS) + 1
    mean = soft_histogram(level, step, COARSE_BINS) / count
    square = soft_histogram(level, step.square(), COARSE_BINS) / count
    return torch.cat([torch.log(mean + 0.003) + 4, torch.log(square.sqrt() + 0.003) + 4], dim=1)


def picture_statistics(sdr: Tensor) -> Tensor:
    """Statistics that a tone curve leaves its traces in.

    Args:
        sdr: `[B,3,H,W]` display-encoded, [0,1]. Values are counted on its own pixels, for averaging would
            hide a small lamp; contrasts are those of a copy of `STATISTICS_SIDE` pixels.

    Returns:
        `[B,STATISTICS]` float32, all of them of the order of 1.
    """
    stride = max(1, min(sdr.shape[-2:]) // COUNTED_SIDE)
    channels = sdr[:, :, ::stride, ::stride].float().flatten(2)
    pixels = channels, channels.amax(dim=1), channels.amin(dim=1)
    luma = resize_to_working(sdr, STATISTICS_SIDE).float().mean(dim=1, keepdim=True)
    levels = [luma]
    while len(levels) < 3:
        levels.append(avg_pool2d(levels[-1], 2))
    spread = torch.stack([levels[-1].flatten(1).std(dim=1), luma.flatten(1).std(dim=1)], dim=1)
    contrasts = torch.cat([*map(contrast_statistics, levels), 3 * spread], dim=1)
    values = value_statistics(*pixels), end_statistics(*pixels)
    return torch.cat([*values, contrasts, slope_statistics(sdr), blend_statistics(sdr)], dim=1)
