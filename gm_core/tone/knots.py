"""Piecewise linear functions on [0,1] by their values at equidistant knots."""

from __future__ import annotations

from torch import Tensor


def hat_position(value: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Index of the knot below `value` in [0,1] among `count` equidistant ones, and the weight of the next."""
    position = value.clamp(0, 1) * (count - 1)
    below = position.floor().clamp(0, count - 2)
    return below.long(), position - below
