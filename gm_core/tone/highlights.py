"""How bright the clipped areas of a picture really were, told from what surrounds them.

A tone curve gives everything white one gain, and sun, lamp and bright cloud become evenly bright areas. Not
their value tells them apart but their place: how large the area is, how steeply its surroundings rise towards
it, whether it hangs in the sky or stands in a room. `HighlightNet` sees the picture at a small size and
answers with stops, smooth and without colour, that are added where a pixel is white and nowhere else.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, gelu, interpolate

from .clipping import white_share, whiteness

HIGHLIGHTS_SIDE, LOOK_SIDE = 32, 128
"""Short sides in pixels of what the net sees, and of the copy of the picture in which white is looked for."""
CLUES = 6
WHITE_CLUE, GAIN_CLUE = 3, 5
"""Of the clues, where the one about white in any channel and the one about stops are."""
LONGEST = 16 * HIGHLIGHTS_SIDE
"""Long side in pixels of what the net sees, at most: a line one pixel high has no end otherwise."""
SURROUNDINGS = (5, 11)
"""Windows in pixels over which the net is told how much is white."""
WIDTHS = (32, 64, 96, 128)
"""Channels at each size of the net, from the largest to the smallest."""
BOLDNESS = 1.4
"""By how much differences between clipped areas exceed the net's answers."""


def look_size(height: int, width: int) -> tuple[int, int]:
    """Height and width, multiples of those of what the net sees, of the copy in which white is looked for."""
    finer, scale = LOOK_SIDE // HIGHLIGHTS_SIDE, HIGHLIGHTS_SIDE / min(height, width)
    rows, columns = (min(round(side * scale), LONGEST) for side in (height, width))
    return rows * finer, columns * finer


def highlight_clues(sdr: Tensor, gain: Tensor) -> Tensor:
    """What the net sees of a picture.

    Args:
        sdr: `[B,3,h,w]` display-encoded, [0,1], of a size that `look_size` gives.
        gain: `[B,1,h,w]` stops that the tone curves give its pixels.

    Returns:
        `[B,CLUES,h/4,w/4]`: colour, how much is white in one channel and in all, stops.
    """
    all_white = whiteness(sdr.amin(dim=1, keepdim=True))
    clues = torch.cat([sdr - 0.5, white_share(sdr), all_white, gain / 4], dim=1)
    return avg_pool2d(clues, LOOK_SIDE // HIGHLIGHTS_SIDE)


def bolder(stops: Tensor, white: Tensor) -> Tensor:
    """Stops `[B,1,h,w]` with larger differences and the same mean over what is white, `white` `[B,1,h,w]`.

    The net was fitted in stops. The light of a mean of stops is less than the mean of the light that may have
    been there, so lamps come out too dim by the very doubt about them.
    """
    dims = (1, 2, 3)
    mean = (white * stops).sum(dims, keepdim=True) / white.sum(dims, keepdim=True).clamp(min=1e-6)
    return mean + BOLDNESS * (stops - mean)


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, channels_in: int, channels_out: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout2d(dropout)
        self.first = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm = nn.GroupNorm(8, channels_out)
        self.second = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.shortcut = (
            nn.Identity() if channels_in == channels_out else nn.Conv2d(channels_in, channels_out, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return gelu(self.shortcut(x) + self.second(self.dropout(gelu(self.norm(self.first(x))))))


class HighlightNet(nn.Module):
    """Clues to stops beyond the tone curves: a small U-Net that starts at "none"."""

    def __init__(self, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.enter = nn.Conv2d(CLUES + len(SURROUNDINGS) + 1, WIDTHS[0], 3, padding=1)
        self.down = nn.ModuleList(Block(*ends, dropout) for ends in pairwise((WIDTHS[0], *WIDTHS)))
        self.up = nn.ModuleList(
            Block(deep + fine, fine, dropout) for deep, fine in pairwise(reversed(WIDTHS))
        )
        self.leave = nn.Conv2d(WIDTHS[0], 1, 1)
        for parameter in self.leave.parameters():
            nn.init.zeros_(parameter)

    def forward(self, clues: Tensor) -> Tensor:
        """`[B,CLUES,h,w]` to `[B,1,h,w]` stops."""
        x, sizes = self.enter(torch.cat([clues, *_surroundings(clues[:, WHITE_CLUE, None])], dim=1)), []
        for block in self.down:
            x = block(avg_pool2d(x, 2) if sizes else x)
            sizes.append(x)
        for block, finer in zip(self.up, sizes[-2::-1], strict=True):
            x = interpolate(x, size=finer.shape[-2:], mode="bilinear")
            x = block(torch.cat([x, finer], dim=1))
        return self.leave(x)


def _surroundings(white: Tensor) -> list[Tensor]:
    """How much is white around each pixel, near and far, and how low in the picture it lies, -1 to 1."""
    shares = [
        avg_pool2d(white, window, stride=1, padding=window // 2, count_include_pad=False)
        for window in SURROUNDINGS
    ]
    rows = torch.linspace(-1, 1, white.shape[-2], device=white.device, dtype=white.dtype)
    return [*shares, rows[:, None].expand_as(white)]
