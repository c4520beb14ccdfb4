"""The small look at a picture by which clipped areas are judged."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

PLACES_SIDE, LOOK_SIDE = 32, 128
"""Short sides in pixels of what the nets see, and of the copy of the picture in which white is looked for."""
STEP = LOOK_SIDE // PLACES_SIDE
"""Pixels a side of that copy that are one place of what the nets see."""
FINER = 4
"""Pixels a side of a finer copy that are one of that copy: in it small lamps still are white."""
LONGEST = 16 * PLACES_SIDE
"""Long side in pixels of what the nets see, at most: a line one pixel high has no end otherwise."""
SURROUNDINGS = (5, 11)
"""Windows in places over which the nets are told how much is white."""


def look_at(sdr: Tensor) -> Tensor:
    """`[B,3,H,W]` to the copy in which white is looked for, `[B,3,h,w]`, sides multiples of `STEP`."""
    return interpolate(sdr.float(), size=look_size(*sdr.shape[-2:]), mode="area")


def fine_look_at(sdr: Tensor) -> Tensor:
    """The same, `FINER` times as large."""
    height, width = look_size(*sdr.shape[-2:])
    return interpolate(sdr.float(), size=(FINER * height, FINER * width), mode="area")


def look_size(height: int, width: int) -> tuple[int, int]:
    """Height and width of that copy: `STEP` times those of what the nets see."""
    scale = PLACES_SIDE / min(height, width)
    rows, columns = (min(round(side * scale), LONGEST) for side in (height, width))
    return rows * STEP, columns * STEP


def surroundings(white: Tensor) -> list[Tensor]:
    """How much is white around each pixel, near and far, and how low in the picture it lies, -1 to 1."""
    shares = [
        avg_pool2d(white, window, stride=1, padding=window // 2, count_include_pad=False)
        for window in SURROUNDINGS
    ]
    rows = torch.linspace(-1, 1, white.shape[-2], device=white.device, dtype=white.dtype)
    return [*shares, rows[:, None].expand_as(white)]
