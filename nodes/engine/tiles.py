"""Decoding a large latent tile by tile, so that no seam shows even at qmax 99."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import comfy.utils
import torch

CONTEXT = 16
"""Latent pixels along the edge of a tile whose output is thrown away.

The decoder pads with zeros there. Core's tiles fade through this part: with the built-in VAE that is up to
half a stop of brightness at qmax 99. A context of 12 leaves 19 codes of 10-bit PQ of it, 16 less than one.
"""
SMALLEST_TILE = 3 * CONTEXT
"""Two thirds of it are thrown away already; with less left, decoding would take many times longer."""


def decode_tiles(
    decode: Callable[[torch.Tensor], torch.Tensor], latent: torch.Tensor, *, scale: int, side: int, fade: int
) -> torch.Tensor:
    """[B,4,h,w] -> [B,3,scale*h,scale*w] by `decode`, which sees at most `side` latent pixels at once.

    Neighbouring tiles fade into each other over `fade` latent pixels, at most half of what is left without
    their context. A `side` below SMALLEST_TILE counts as that.
    """
    side = max(side, SMALLEST_TILE)
    kept = side - 2 * CONTEXT
    fade = min(fade, kept // 2)
    size = [scale * length for length in latent.shape[-2:]]
    total, weights = torch.zeros(len(latent), 3, *size), torch.zeros(size)
    places = list(product(*(starts(length, side, kept - fade) for length in latent.shape[-2:])))
    bar = comfy.utils.ProgressBar(len(places))
    for top, left in places:
        tile = decode(latent[..., top : top + side, left : left + side]).to(total)
        rows, columns = (
            slice(scale * start, scale * start + length)
            for start, length in zip((top, left), tile.shape[-2:], strict=True)
        )
        down, across = (
            window(part, whole, context=scale * CONTEXT, fade=scale * fade)
            for part, whole in zip((rows, columns), size, strict=True)
        )
        weight = down[:, None] * across
        total[..., rows, columns] += tile * weight
        weights[rows, columns] += weight
        bar.update(1)
    return total / weights


def starts(length: int, side: int, step: int) -> list[int]:
    """Where tiles begin: evenly spaced by at most `step`, and every tile is full."""
    last = max(length - side, 0)
    gaps = math.ceil(last / step)
    return [round(last * number / gaps) for number in range(gaps)] + [last]


def window(part: slice, whole: int, *, context: int, fade: int) -> torch.Tensor:
    """Weights of a tile along one side: 0 in its context, then rising; 1 along the picture's own edge."""
    length = part.stop - part.start
    way = ((torch.arange(length) + 0.5 - context) / max(fade, 1)).clamp(0, 1)
    # Smooth at both ends: what the padding disturbs most counts least.
    rise = way.square() * (3 - 2 * way)
    left = rise if part.start > 0 else torch.ones(length)
    right = rise.flip(0) if part.stop < whole else torch.ones(length)
    return left * right
