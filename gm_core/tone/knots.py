"""Functions on [0,1] by their values at equidistant knots: straight between them, or smooth."""

from __future__ import annotations

import torch
from torch import Tensor


def hat_position(value: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Index of the knot below `value` in [0,1] among `count` equidistant ones, and the weight of the next."""
    position = value.clamp(0, 1) * (count - 1)
    below = position.floor().clamp(0, count - 2)
    return below.long(), position - below


def smoothed(values: Tensor, steps: int) -> Tensor:
    """The smooth curve through some values, which never overshoots: cubic between them, rising where they
    rise (Fritsch and Butland, 1984).

    Args:
        values: `[B,K]` at equidistant knots, K at least 3.
        steps: parts that each interval is cut into.

    Returns:
        `[B,(K-1)*steps+1]`; every `steps`th is one of the values.
    """
    start, end = values[:, :-1, None], values[:, 1:, None]
    slopes = _slopes(values)
    t = torch.arange(steps, dtype=values.dtype, device=values.device) / steps
    bend = t * (1 - t)
    leave, arrive = slopes[:, :-1, None] - (end - start), (end - start) - slopes[:, 1:, None]
    between = torch.lerp(start, end, t) + bend * ((1 - t) * leave + t * arrive)
    return torch.cat([between.flatten(1), values[:, -1:]], dim=1)


def _slopes(values: Tensor) -> Tensor:
    """`[B,K]` by knot of `values` `[B,K]`: inside the harmonic mean of those at either side, 0 at a turn; at
    the ends that of the parabola through three knots, unless it overshoots.
    """
    rise = values.diff(dim=1)
    product, total = rise[:, :-1] * rise[:, 1:], rise[:, :-1] + rise[:, 1:]
    inside = torch.where(product > 0, 2 * product / torch.where(product > 0, total, 1), 0)
    ends = [_end_slope(rise[:, at], rise[:, beyond]) for at, beyond in ((0, 1), (-1, -2))]
    return torch.cat([ends[0][:, None], inside, ends[1][:, None]], dim=1)


def _end_slope(own: Tensor, next_one: Tensor) -> Tensor:
    slope = (3 * own - next_one) / 2
    slope = torch.where(slope * own > 0, slope, 0)
    return torch.where((own * next_one < 0) & (slope.abs() > 3 * own.abs()), 3 * own, slope)
