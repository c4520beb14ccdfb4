"""Validation pictures: crops of HDR panoramas as fixed cameras would show them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from torch import Tensor

from .cache import to_bchw
from .panoramas import View, load_panorama, random_view, render_view
from .tone_curves import HDR_PEAK, Array, srgb_encode
from .validation_renderings import RENDERINGS

HIGHLIGHT_LEVEL, MOST_TRIES = 3.0, 200
"""Light (1.0 = SDR white) that the brightest hundredth of a validation picture exceeds, and how many crops of
a scene are looked at to find such ones."""
PLAIN_TRIES = 8
"""Crops of which a plain picture is the one with the least range."""
GOLDEN_RATIO = 1.618


@dataclass(frozen=True)
class Case:
    """One validation picture: `sdr` `[1,3,H,W]` 8-bit values in [0,1], `truth` `[1,3,H,W]` linear."""

    scene: str
    rendering: str
    sdr: Tensor
    truth: Tensor


def eight_bit_case(scene: str, rendering: str, sdr: Array, hdr: Array) -> Case:
    """The case of an SDR rendering of `hdr`, both `[H,W,3]`, that a file of 8 bits would hold."""
    codes = np.round(np.clip(sdr, 0, 1) * 255) / 255
    return Case(scene, rendering, to_bchw(codes.astype(np.float32))[None], to_bchw(hdr)[None])


def validation_pictures(panorama: Array, rng: np.random.Generator, size: int) -> Iterator[Array]:
    """Crops that have high dynamic range, a random 1.5 % to 25 % of each above white."""
    for index in range(MOST_TRIES):
        view = View(
            yaw=360 * (index / GOLDEN_RATIO + 0.1 * rng.random()),
            pitch=rng.uniform(-15, 30),
            roll=0,
            fov=rng.uniform(55, 90),
        )
        scene = render_view(panorama, view, size, size)
        share = float(np.exp(rng.uniform(np.log(0.015), np.log(0.25))))
        hdr = np.clip(scene / np.quantile(scene.max(axis=-1), 1 - share), 0, HDR_PEAK)
        if np.quantile(hdr.max(axis=-1), 0.99) > HIGHLIGHT_LEVEL:
            yield hdr.astype(np.float32)


def validation_cases(
    scenes: list[Path],
    *,
    renderings: Iterable[str] = tuple(RENDERINGS),
    size: int = 512,
    views: int = 6,
    seed: int = 1,
) -> Iterator[Case]:
    """`views` crops of every scene (fewer, where it has less) in each of the renderings, names in
    `RENDERINGS`.
    """
    for path in scenes:
        # The views must not change with the other scenes in the folder, hence no counter in the seed.
        rng, panorama = np.random.default_rng([seed, len(path.stem)]), load_panorama(path)
        for index, hdr in enumerate(islice(validation_pictures(panorama, rng, size), views)):
            for name in renderings:
                yield eight_bit_case(path.stem, name, *RENDERINGS[name](hdr, index))


def plain_cases(scenes: list[Path], *, size: int = 512, views: int = 6, seed: int = 2) -> Iterator[Case]:
    """`views` crops of every scene that have little range, as a camera with a plain curve shows them without
    clipping: pictures with nothing to gain.
    """
    for path in scenes:
        rng, panorama = np.random.default_rng([seed, len(path.stem)]), load_panorama(path)
        for _ in range(views):
            crops = [render_view(panorama, random_view(rng), size, size) for _ in range(PLAIN_TRIES)]
            scene = min(crops, key=lambda crop: np.quantile(crop, 0.995) / np.quantile(crop, 0.5))
            hdr = np.clip(0.98 * scene / scene.max(), 0, 1).astype(np.float32)
            yield eight_bit_case(path.stem, "plain", srgb_encode(hdr), hdr)
