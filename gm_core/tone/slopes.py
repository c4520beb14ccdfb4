"""How steep a camera's tone curve is at one value beside another.

Where light falls off along a surface, all its channels lose the same share. Where red is brighter than green,
that share moves the two along different parts of the curve, so their steps compare the curve's slopes at both
values, whatever the contrast of the scene. The idea is that of radiometric calibration from a single picture;
here a net judges the evidence, for edges between things of different colours are among it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

SLOPES_SIDE, LEVELS = 128, 3
"""Short side in pixels of the largest copy in which steps are measured, and the number of sizes."""
LONGEST = 16 * SLOPES_SIDE
"""Long side in pixels of that copy, at most: a line one pixel high has no end otherwise."""
CELLS = 12
"""Bins of a value; a pair of values lies in one of `CELLS * CELLS`, of which half occur."""
CHANNEL_PAIRS = ((0, 1), (1, 2), (0, 2))
LEAST_STEP, LARGEST_STEP = 0.02, 0.2
"""Sums of two channels' steps: below, they are noise; above, they count no more."""
MAY_BE_CLIPPED, LEAST_APART = 0.985, 0.03
"""A value from which it may be clipped, and how far apart two values must lie to tell anything."""
DOUBT = 2e-5
"""Mean step that is added to both of a cell: few pairs prove little."""
SLOPE_STATISTICS = LEVELS * CELLS * (CELLS + 1)


def slope_statistics(sdr: Tensor) -> Tensor:
    """Evidence of the tone curve's slopes.

    Args:
        sdr: `[B,3,H,W]` display-encoded, [0,1].

    Returns:
        `[B,SLOPE_STATISTICS]` float32. For each size of steps and each pair of values (brighter channel,
        darker channel): four times the log of how much more the brighter one changes, then how often
        that was seen.
    """
    whole = 2 ** (LEVELS - 1)
    scale = SLOPES_SIDE / min(sdr.shape[-2:])
    size = [max(2, round(min(side * scale, LONGEST) / whole)) * whole for side in sdr.shape[-2:]]
    picture = interpolate(sdr.float(), size=size, mode="area")
    sizes = [picture]
    while len(sizes) < LEVELS:
        sizes.append(avg_pool2d(sizes[-1], 2))
    return torch.cat([_step_ratios(size) for size in sizes], dim=1)


def _step_ratios(picture: Tensor) -> Tensor:
    """`[B,3,h,w]` to `[B,CELLS (CELLS + 1)]`."""
    bright, dark, bright_step, dark_step = _channel_steps(picture)
    steps = (bright_step + dark_step).clamp(min=1e-6)
    usable = (steps > LEAST_STEP) & (bright < MAY_BE_CLIPPED) & (bright - dark > LEAST_APART)
    weight = usable * steps.clamp(max=LARGEST_STEP) / steps
    cell = (bright * CELLS).long().clamp(max=CELLS - 1) * CELLS + (dark * CELLS).long().clamp(max=CELLS - 1)
    means = [_by_cell(cell, values) for values in (weight * bright_step, weight * dark_step, usable.float())]
    ratio = torch.log((means[0] + DOUBT) / (means[1] + DOUBT))
    rows, columns = torch.tril_indices(CELLS, CELLS, device=cell.device)
    occurring = rows * CELLS + columns
    return torch.cat([4 * ratio[:, occurring], 2 * means[2][:, occurring].sqrt()], dim=1)


def _channel_steps(picture: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of every two neighbours and every two channels, `[B,N]` each: the mean value of the brighter channel
    and of the darker one, and how far each changes; 0 where they change in opposite directions.
    """
    found = []
    for one, other in (
        (picture[..., 1:], picture[..., :-1]),
        (picture[..., 1:, :], picture[..., :-1, :]),
    ):
        value, step = ((one + other) / 2).flatten(2), (one - other).flatten(2)
        for first, second in CHANNEL_PAIRS:
            swapped = value[:, first] < value[:, second]
            together = step[:, first] * step[:, second] > 0
            for of in (value, step.abs() * together[:, None]):
                found.append(torch.where(swapped, of[:, second], of[:, first]))
                found.append(torch.where(swapped, of[:, first], of[:, second]))
    bright, dark, bright_step, dark_step = (torch.cat(found[kind::4], dim=1) for kind in range(4))
    return bright, dark, bright_step, dark_step


def _by_cell(cell: Tensor, values: Tensor) -> Tensor:
    """Sums of `values` `[B,N]` in each cell, a share of all pairs, `[B,CELLS * CELLS]`."""
    sums = values.new_zeros(len(cell), CELLS * CELLS)
    return sums.scatter_add_(1, cell, values) / values.shape[1]
