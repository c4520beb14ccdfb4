"""What the tests of loaders and savers put into files."""

from __future__ import annotations

import torch

PROMPT, WORKFLOW = {"1": {"class_type": "Ünïcode"}}, {"nodes": []}


def hdr_picture(batch: int = 1, height: int = 24, width: int = 40, peak: float = 60.0) -> torch.Tensor:
    """The same random IMAGE [B,H,W,3] each time: mostly dark, with highlights up to `peak`."""
    values = torch.rand(batch, height, width, 3, generator=torch.Generator().manual_seed(0))
    return values**4 * peak
