"""The U-Net of the nets that judge clipped areas."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, gelu, interpolate


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


class SmallUNet(nn.Module):
    """What is seen of a picture `[B,clues,h,w]` to `[B,answers,h,w]`, starting at 0."""

    def __init__(self, clues: int, answers: int, widths: tuple[int, ...], *, dropout: float = 0.0) -> None:
        super().__init__()
        self.enter = nn.Conv2d(clues, widths[0], 3, padding=1)
        self.down = nn.ModuleList(Block(*ends, dropout) for ends in pairwise((widths[0], *widths)))
        self.up = nn.ModuleList(
            Block(deep + fine, fine, dropout) for deep, fine in pairwise(reversed(widths))
        )
        self.leave = nn.Conv2d(widths[0], answers, 1)
        for parameter in self.leave.parameters():
            nn.init.zeros_(parameter)

    def forward(self, clues: Tensor) -> Tensor:
        x, sizes = self.enter(clues), []
        for block in self.down:
            x = block(avg_pool2d(x, 2) if sizes else x)
            sizes.append(x)
        for block, finer in zip(self.up, sizes[-2::-1], strict=True):
            x = interpolate(x, size=finer.shape[-2:], mode="bilinear")
            x = block(torch.cat([x, finer], dim=1))
        return self.leave(x)
