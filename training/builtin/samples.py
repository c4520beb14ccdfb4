"""Training samples of the built-in model: an SDR picture and its log2-coded gain map, from scenes with ground
truth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from training.errors import DatasetError

from .drawings import drawing, printed
from .panoramas import View, load_panorama, random_view, render_view
from .rendering import (
    anchor_midtones,
    damage,
    expose,
    expose_plainly,
    graded,
    hue_kept_sdr,
    local_compression,
    log_gain,
    optics,
    phone_sdr,
    render_sdr,
)
from .tone_curves import Array

LOG2_MIN, LOG2_MAX = -3.0, 5.0
"""Gain range in stops that the coded map spans: a 1/8 darkening to 32 times SDR white."""
HIGHLIGHT_CONTRAST = 3.0
"""How much brighter a view's brightest 2 % are than its brightest 30 % if it has high dynamic range."""
PLAIN_CURVES = 0.6
"""Of samples with nothing above white the least share that keep their tones as they are."""
PRINTED_SHARE, PLAIN_PRINTED_SHARE = 0.06, 0.3
"""Share of scenes with a printed sheet in them, and of scenes of little range."""
SCENE_SIDE, KEPT_SIDE = 256, 128
"""Pixels per side at which a camera photographs a scene, and of the area-averaged copy that is kept."""


@dataclass(frozen=True)
class Sample:
    """One picture: `sdr` uint8 `[S,S,3]` as a file would hold it, `gain` float32 `[S,S,3]` in stops."""

    sdr: Array
    gain: Array

    @property
    def coded(self) -> Array:
        """The gain map `[S,S,3]` in [0,1] that the autoencoder carries."""
        return code_gain(self.gain)


class Glimpse(NamedTuple):
    """A small look at a panorama `[H,W,3]`: `light` `[32,32]` is the brightest channel of `view`."""

    panorama: Array
    view: View
    light: Array


class Scenes:
    """Panoramas in memory plus, optionally, ordinary photographs that serve as scenes of low dynamic range.

    Photographs keep the model honest: paper, skin and sky of an ordinary picture gain next to nothing. And
    they show more of the world than a few panoramas do, so a third of them stand in for scenes of high range.
    """

    def __init__(self, panoramas: list[Path], photos: list[Path], *, photo_share: float = 0.15) -> None:
        self.panoramas = [load_panorama(path) for path in panoramas]
        self.photos = [load_photo(path) for path in photos]
        self.photo_share = photo_share if photos else 0.0

    def crop(self, rng: np.random.Generator, size: int, *, plain: bool = False) -> Array:
        """A random linear-light picture `[size,size,3]`, arbitrary exposure, seen through a lens; `plain`:
        preferably one of little range.

        Few scenes are easily learned by heart, and with them how bright each thing in them really is. So a
        scene also comes under other light, with other contrast, and as a double exposure with another one.
        """
        crop = self._view(rng, size, plain)
        if rng.random() < 0.35:
            other = self._view(rng, size, plain)
            level = [np.quantile(picture, 0.9) + 1e-6 for picture in (crop, other)]
            crop, other = crop / level[0], other / level[1] * np.float32(2 ** rng.uniform(-2, 2))
            crop = beside(rng, crop, other) if rng.random() < 0.5 else crop + other
        crop = crop * np.exp2(rng.normal(0, 0.25, 3)).astype(np.float32)
        crop = crop ** np.float32(rng.uniform(0.85, 1.18))
        if rng.random() < (PLAIN_PRINTED_SHARE if plain else PRINTED_SHARE):
            crop = printed(rng, crop)
        return optics(rng, crop) if rng.random() < 0.5 else crop

    def _view(self, rng: np.random.Generator, size: int, plain: bool) -> Array:
        if rng.random() < self.photo_share:
            view = crop_photo(rng, self.photos[rng.integers(len(self.photos))], size)
        else:
            view = (self._plain_view if plain else self._lit_view)(rng, size)
        return view[:, ::-1] if rng.random() < 0.5 else view

    def _glimpses(self, rng: np.random.Generator, count: int) -> Iterator[Glimpse]:
        for _ in range(count):
            panorama, view = self.panoramas[rng.integers(len(self.panoramas))], random_view(rng)
            yield Glimpse(panorama, view, render_view(panorama, view, 32, 32).max(axis=-1))

    def _lit_view(self, rng: np.random.Generator, size: int) -> Array:
        """Mostly one with a window, lamp, sun or sky in it: the rest of a scene has little range to learn."""
        for seen in self._glimpses(rng, 4 if rng.random() < 0.6 else 1):
            if np.quantile(seen.light, 0.98) > HIGHLIGHT_CONTRAST * np.quantile(seen.light, 0.7):
                break
        return render_view(seen.panorama, seen.view, size, size)

    def _plain_view(self, rng: np.random.Generator, size: int) -> Array:
        """The one with the least range of up to eight."""
        few = self._glimpses(rng, int(rng.integers(1, 9)))
        seen = min(few, key=lambda one: np.quantile(one.light, 0.99) / (np.quantile(one.light, 0.5) + 1e-6))
        return render_view(seen.panorama, seen.view, size, size)


def beside(rng: np.random.Generator, left: Array, right: Array) -> Array:
    """Two pictures `[S,S,3]` on either side of a random line."""
    size, angle = left.shape[0], rng.uniform(0, 2 * np.pi)
    row, column = np.mgrid[:size, :size] - (size - 1) / 2
    distance = row * np.sin(angle) + column * np.cos(angle) - rng.uniform(-0.3, 0.3) * size
    share = np.clip(distance / rng.uniform(1, 8) + 0.5, 0, 1)[..., None].astype(np.float32)
    return right + share * (left - right)


def load_photo(path: Path) -> Array:
    """uint8 `[H,W,3]`, RGB order. Raises: DatasetError when it is no picture."""
    photo = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if photo is None:
        raise DatasetError(f"{path}: not a readable picture; remove it from the folder of photos")
    return photo[..., ::-1]


def crop_photo(rng: np.random.Generator, photo: Array, size: int) -> Array:
    """A random square of an 8-bit photo, `[size,size,3]`: linearised, and a third of the time with the range
    given back that a camera may have taken.
    """
    side = int(min(photo.shape[:2]) * rng.uniform(0.5, 1.0))
    top = int(rng.integers(photo.shape[0] - side + 1))
    left = int(rng.integers(photo.shape[1] - side + 1))
    square = cv2.resize(
        photo[top : top + side, left : left + side], (size, size), interpolation=cv2.INTER_AREA
    )
    codes = square.astype(np.float32) / 255
    light = codes ** np.float32(rng.uniform(2.0, 2.6))
    if rng.random() < 0.33:
        # Brightness goes up with the brightest channel, so that colours stay.
        light = light * np.exp2(
            rng.uniform(0, 5) * np.clip(codes.max(axis=-1, keepdims=True) - 0.6, 0, 1) / 0.4
        )
    return light.astype(np.float32)


def code_gain(gain: Array) -> Array:
    """Stops to the [0,1] picture that the autoencoder carries."""
    return np.clip((gain - LOG2_MIN) / (LOG2_MAX - LOG2_MIN), 0, 1).astype(np.float32)


def make_sample(rng: np.random.Generator, scenes: Scenes, mix: str = "all") -> Sample:
    """Draws scene, view, exposure and camera, of a mix in `MIXES`, and returns what the camera saved and the
    gain that undoes it, `SCENE_SIDE` pixels square.

    The target is the gain of the undamaged rendering: JPEG blocks and noise are not something to reproduce.
    """
    shares, makers = zip(*MIXES[mix], strict=True)
    drawn = np.searchsorted(np.cumsum(shares[:-1]), rng.random(), side="right")
    return makers[drawn](rng, scenes)


def camera_sample(rng: np.random.Generator, scenes: Scenes) -> Sample:
    hdr = expose(rng, scenes.crop(rng, SCENE_SIDE))
    return damaged_sample(rng, render_sdr(rng, hdr), hdr)


def drawn_sample(rng: np.random.Generator, scenes: Scenes) -> Sample:
    """What was drawn is meant as it is: no gain anywhere. It shows no scene."""
    sdr = drawing(rng, SCENE_SIDE)
    return Sample(sdr=damage(rng, sdr), gain=np.zeros_like(sdr))


def plain_sample(rng: np.random.Generator, scenes: Scenes) -> Sample:
    hdr = expose_plainly(rng, scenes.crop(rng, SCENE_SIDE, plain=True))
    return damaged_sample(rng, render_sdr(rng, hdr, plain=PLAIN_CURVES), hdr)


def phone_sample(rng: np.random.Generator, scenes: Scenes) -> Sample:
    hdr = phone_hdr(rng, scenes)
    return damaged_sample(rng, phone_sdr(rng, hdr), hdr)


def hue_kept_sample(rng: np.random.Generator, scenes: Scenes) -> Sample:
    """One of a phone that keeps hues."""
    hdr = phone_hdr(rng, scenes)
    seen = local_compression(rng, hdr) if rng.random() < 0.25 else hdr
    return damaged_sample(rng, hue_kept_sdr(rng, seen), hdr)


def phone_hdr(rng: np.random.Generator, scenes: Scenes) -> Array:
    return graded(rng, expose(rng, scenes.crop(rng, SCENE_SIDE)))


MIXES: dict[str, tuple[tuple[float, Callable[[np.random.Generator, Scenes], Sample]], ...]] = {
    "all": ((0.04, drawn_sample), (0.06, plain_sample), (0.18, phone_sample), (0.72, camera_sample)),
    "phones": ((0.05, drawn_sample), (0.15, plain_sample), (0.80, hue_kept_sample)),
}
"""What a cache may hold, and the share of each: all cameras, or phones that keep hues. Pictures with nothing
to gain are in both, or one that clips nothing would pass for a compressed one.
"""


def damaged_sample(rng: np.random.Generator, sdr: Array, hdr: Array) -> Sample:
    """Of an undamaged rendering `sdr` and the light `hdr` it shows, both `[S,S,3]`."""
    gain = log_gain(sdr, anchor_midtones(sdr, hdr))
    return Sample(sdr=damage(rng, sdr), gain=gain.astype(np.float32))


def shrink(picture: Array, side: int) -> Array:
    """`[S,S,3]` area-averaged to `[side,side,3]`, same type."""
    return cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
