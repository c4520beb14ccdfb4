"""Steady tones for the frames of a film, which otherwise are judged one by one and flicker."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .curves import ToneCurves
from .reading import ToneReading

PACE = 6.0
"""Frames over which a frame listens to others, as the standard deviation of their weights."""
FARTHEST = 18
"""Frames before and after it that count at all."""
ALIKE = 0.05
"""Difference of two glances, of values in [0,1], that counts as much as `PACE` frames between them."""
LITTLE = 1e-3


def steadied(readings: Sequence[ToneReading]) -> list[ToneReading]:
    """The readings of a film's frames, one picture each, in order, each averaged with those of the frames
    around that look alike. A cut separates, and so does a flash.

    Of clipped areas each frame says only what it sees white.
    """
    return [
        _steadied(readings[max(0, at - FARTHEST) : at + FARTHEST + 1], min(at, FARTHEST))
        for at in range(len(readings))
    ]


def _steadied(around: Sequence[ToneReading], own: int) -> ToneReading:
    weights = _weights(torch.cat([reading.glance for reading in around]), own)
    mean = lambda values: torch.einsum("b,bk->k", weights, torch.cat(values))[None]  # noqa: E731
    white = weights[:, None, None, None] * (torch.cat([reading.white for reading in around]) + LITTLE)
    seen = lambda values: (white * torch.cat(values)).sum(0, keepdim=True) / white.sum(0, keepdim=True)  # noqa: E731
    return ToneReading(
        ToneCurves(mean([r.curves.by_channel for r in around]), mean([r.curves.by_largest for r in around])),
        seen([reading.highlights for reading in around]),
        seen([reading.tints for reading in around]),
        around[own].white,
        around[own].glance,
    )


def _weights(glances: Tensor, own: int) -> Tensor:
    """`[N]`, their sum 1, by distance in time and in looks from one of the glances `[N,3,h,w]`."""
    frames = torch.arange(len(glances), dtype=glances.dtype, device=glances.device) - own
    difference = (glances - glances[own]).square().mean(dim=(1, 2, 3)).sqrt()
    return torch.softmax(-((frames / PACE).square() + (difference / ALIKE).square()) / 2, dim=0)
