"""Large batches, such as the frames of a film: one picture at a time beside what comes in and goes out."""

from __future__ import annotations

from collections.abc import Callable

import torch

from .engine.host import check_interrupted
from .tensors import loaded, to_image


def picture_by_picture(work: Callable[..., torch.Tensor], *batches: torch.Tensor) -> torch.Tensor:
    """IMAGE [B,H,W,C] of what `work` makes of equally long batches [B,C,H,W].

    `work` is given one picture [1,C,H,W] of each batch, float32, and returns one. Raises ComfyUI's interrupt
    exception between two pictures if the user pressed Cancel.
    """
    count = len(batches[0])
    made = torch.empty(0)
    for number in range(count):
        check_interrupted()
        picture = to_image(work(*(loaded(batch[number : number + 1]) for batch in batches)))
        if count == 1:
            return picture
        if number == 0:
            made = picture.new_empty(count, *picture.shape[1:])
        made[number] = picture[0]
    return made
