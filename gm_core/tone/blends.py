"""How much a camera's tone curve bends, from pixels that blend their two neighbours.

At an edge a lens blends light: of a pixel between two others every channel holds the same share of either.
The tone curve bends the shares, those of a channel that changes much more than those of one that changes
little. Their differences tell the curve's bend at every value, and with it all of the curve but the exposure,
whatever is in the picture (radiometric calibration from a single picture after Lin et al., 2004).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .knots import hat_position

SPACINGS = (1, 2, 4)
"""Pixels from a blend to its neighbours."""
BENDS = 12
"""Equidistant values in [0,1] at which the bend is estimated."""
CENTRES_SIDE, MOST_BLENDS = 256, 12_000
"""Short side of the grid on which blends are looked for, and how many of them are used at most."""
LEAST_CHANGE, NEAR_BLACK, MAY_BE_CLIPPED = 0.05, 0.01, 0.975
"""Change between neighbours below which shares are noise; values next to which a channel may be clipped."""
CODE_NOISE, SHARE_NOISE = 0.01, 0.05
"""Standard deviations of a value, and of a share for other reasons."""
PRIOR_STRENGTHS = (0.01, 0.1, 1.0)
USUAL_BEND = 1.2
"""Bend of a display gamma of 2.2, times the value."""
VALUE_CELLS, CHANGE_CELLS, CHANGE_STEP = 8, 4, 0.08
BLEND_STATISTICS = len(SPACINGS) * (len(PRIOR_STRENGTHS) * BENDS + BENDS + 2 * VALUE_CELLS * CHANGE_CELLS)


class Blends(NamedTuple):
    """Pixels between two others in two channels, `[N]` each; `wide` changes more than `narrow`."""

    wide_value: Tensor
    narrow_value: Tensor
    wide_change: Tensor
    narrow_change: Tensor
    excess: Tensor
    """By how much the share of the second neighbour in the wide channel exceeds that in the narrow one."""
    evenness: Tensor
    """`s (1 - s) / 2` of the share s: by how much a bend of 1 changes it."""


def blend_statistics(sdr: Tensor) -> Tensor:
    """Evidence of the tone curve's bend, `-f'' / f'^2` of a curve f from light to values.

    Args:
        sdr: `[B,3,H,W]` display-encoded, [0,1], at its own size: smaller copies blend values, not light.

    Returns:
        `[B,BLEND_STATISTICS]` float32.
    """
    return torch.stack([torch.cat([_bends(picture, n) for n in SPACINGS]) for picture in sdr.float()])


def _bends(picture: Tensor, spacing: int) -> Tensor:
    """`[3,H,W]` to estimates of the bend minus the usual one under priors of several strengths, how much
    supports them, and the mean bend by value and change with the support of each.
    """
    blends, weight = _most_certain(find_blends(picture, spacing))
    rows = _hats(blends.wide_value, blends.wide_change) - _hats(blends.narrow_value, blends.narrow_change)
    rows = rows * blends.evenness[:, None]
    normal = (rows * weight[:, None]).T @ rows
    right = (rows * weight[:, None]).T @ blends.excess
    usual = USUAL_BEND / (torch.linspace(0, 1, BENDS).to(picture) + 0.1)
    smooth = torch.diff(torch.eye(BENDS).to(picture), n=2, dim=0)
    prior = smooth.T @ smooth + 0.03 * torch.eye(BENDS).to(picture)
    found = [
        0.3 * torch.linalg.solve(normal + strength * prior, right - normal @ usual)
        for strength in PRIOR_STRENGTHS
    ]
    support = 0.3 * torch.log(normal.diagonal() + 1e-3)
    return torch.cat([*found, support, *_means_by_cell(blends, weight)])


def find_blends(picture: Tensor, spacing: int) -> Blends:
    """The blends of a picture `[3,H,W]`, along rows and columns."""
    step = max(1, min(picture.shape[-2:]) // CENTRES_SIDE)
    found = [_blends_along(rows[:, ::step], spacing, step) for rows in (picture, picture.mT)]
    return Blends(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def _blends_along(rows: Tensor, spacing: int, step: int) -> Blends:
    length = max(rows.shape[-1] - 2 * spacing, 0)
    one, middle, other = (
        rows[..., start : start + length : step].flatten(1) for start in (0, spacing, 2 * spacing)
    )
    changing = ((other - one).abs() > LEAST_CHANGE).sum(dim=0) > 1  # Most of a picture is even.
    one, middle, other = (of[:, changing] for of in (one, middle, other))
    value, change = (one + other) / 2, other - one
    usable = (change.abs() > LEAST_CHANGE) & (value - change.abs() / 2 > NEAR_BLACK)
    usable &= value + change.abs() / 2 < MAY_BE_CLIPPED
    share = (middle - one) / torch.where(usable, change, 1)
    usable &= (share > 0.12) & (share < 0.88)
    found = []
    for first, second in ((0, 1), (1, 2), (0, 2)):
        both = usable[first] & usable[second]
        v, c, s = (of[[first, second]][:, both] for of in (value, change, share))
        swapped = c[0].abs() < c[1].abs()
        (wide_v, narrow_v), (wide_c, narrow_c), (wide_s, narrow_s) = (
            (torch.where(swapped, of[1], of[0]), torch.where(swapped, of[0], of[1])) for of in (v, c, s)
        )
        mean = (wide_s + narrow_s) / 2
        found.append(Blends(wide_v, narrow_v, wide_c, narrow_c, wide_s - narrow_s, mean * (1 - mean) / 2))
    return Blends(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def _most_certain(blends: Blends) -> tuple[Blends, Tensor]:
    """At most `MOST_BLENDS` of them and the weight of each, `[N]`, 1 at most."""
    codes = CODE_NOISE**2 * (blends.wide_change**-2 + blends.narrow_change**-2)
    certainty = SHARE_NOISE**2 / (codes + SHARE_NOISE**2)
    weight, best = certainty.topk(min(len(certainty), MOST_BLENDS))
    return Blends(*(part[best] for part in blends)), weight


def _hats(value: Tensor, change: Tensor) -> Tensor:
    """`change` `[N]` shared by the two knots next to `value` `[N]`, `[N,BENDS]`."""
    below, share = hat_position(value, BENDS)
    rows = value.new_zeros(len(value), BENDS)
    rows.scatter_(1, below[:, None], ((1 - share) * change)[:, None])
    return rows.scatter_(1, below[:, None] + 1, (share * change)[:, None])


def _means_by_cell(blends: Blends, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Mean bend by value of the wide channel and by how much more it changes, and the support of each."""
    more = (blends.wide_change - blends.narrow_change).abs() / CHANGE_STEP
    row = (blends.wide_value * VALUE_CELLS).long().clamp(0, VALUE_CELLS - 1)
    cell = row * CHANGE_CELLS + more.long().clamp(0, CHANGE_CELLS - 1)
    sums = weight.new_zeros(2, VALUE_CELLS * CHANGE_CELLS)
    sums[0].scatter_add_(0, cell, weight * blends.evenness * blends.excess * blends.wide_change.sign())
    sums[1].scatter_add_(0, cell, weight * blends.evenness.square())
    return sums[0] / (sums[1] + 0.5), 0.3 * torch.log(sums[1] + 0.1)
