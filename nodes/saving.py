"""What all savers share: pixels the format can hold, one file per picture, Cancel between two."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import torch
from comfy_api.latest import io

from ..gm_core.codecs.sanitize import sanitize
from ..gm_core.color import convert_primaries
from .engine.host import check_interrupted, progress_bar
from .output_files import SavedFiles, destination
from .tensors import loaded

log = logging.getLogger(__name__)

HIDDEN = [io.Hidden.prompt, io.Hidden.extra_pnginfo]

Encoder = Callable[[int], tuple[bytes, str]]
"""Picture number -> the file, and what had to be replaced in it (empty if nothing)."""


def linear_picture(hdr: torch.Tensor, number: int, source: str, target: str) -> torch.Tensor:
    """Picture `number` [3,H,W] of a batch [B,3,H,W], converted between primaries; the rest is not copied."""
    return convert_primaries(loaded(hdr[number : number + 1]), source, target)[0]


def pixels(picture: torch.Tensor) -> np.ndarray:
    """[C,H,W] -> contiguous numpy [H,W,C]."""
    return picture.movedim(0, -1).contiguous().numpy()


def cleaned(picture: torch.Tensor, *, keep_negative: bool = False) -> tuple[np.ndarray, str]:
    """What the format can hold, and what was replaced."""
    clean, counts = sanitize(pixels(picture), keep_negative=keep_negative)
    return clean, str(counts) if counts.total else ""


def save_batch(pictures: torch.Tensor, prefix: str, suffix: str, encode: Encoder) -> SavedFiles:
    """Encodes and writes picture after picture of a batch [B,C,H,W]; stops between two when the user cancels.

    Raises:
        ImageWriteError: the prefix leads out of ComfyUI's output folder, or a file cannot be written.
    """
    height, width = pictures.shape[-2:]
    target = destination(prefix, width, height)
    bar = progress_bar(len(pictures))
    saved = SavedFiles()
    for number in range(len(pictures)):
        check_interrupted()
        data, replaced = encode(number)
        result = target.claim(number, suffix, data)
        saved.results.append(result)
        if replaced:
            saved.warnings.append(f"{result.filename}: {replaced}")
            log.warning("%s: values the format cannot hold: %s", result.filename, replaced)
        bar.update(1)
    return saved
