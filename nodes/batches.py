"""Large batches, such as the frames of a film: one picture at a time beside what comes in and goes out."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from .engine.host import check_interrupted
from .tensors import loaded, to_image


def pictures_of(*batches: torch.Tensor) -> Iterator[list[torch.Tensor]]:
    """One picture [1,C,H,W] of each of equally long batches [B,C,H,W], float32, after the other.

    Raises ComfyUI's interrupt exception between two if the user pressed Cancel.
    """
    for number in range(len(batches[0])):
        check_interrupted()
        yield [loaded(batch[number : number + 1]) for batch in batches]


def picture_by_picture(work: Callable[..., torch.Tensor], *batches: torch.Tensor) -> torch.Tensor:
    """IMAGE [B,H,W,C] of what `work` makes of equally long batches [B,C,H,W].

    `work` is given what `pictures_of` yields and returns one picture.
    """
    count = len(batches[0])
    made = torch.empty(0)
    for number, pictures in enumerate(pictures_of(*batches)):
        picture = to_image(work(*pictures))
        if count == 1:
            return picture
        if number == 0:
            made = picture.new_empty(count, *picture.shape[1:])
        made[number] = picture[0]
    return made
