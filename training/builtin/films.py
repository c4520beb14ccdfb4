"""How much bright areas flicker in a film made HDR: its frames read one by one, and sharing their tones."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gm_core.gain_map import merge_hdr
from gm_core.tone.apply import finished_gain_map
from gm_core.tone.film import steadied
from gm_core.tone.reading import ToneReading, read_tones
from training.errors import ConfigError
from training.exit_codes import exit_code

from .cache import to_bchw
from .panoramas import View, find_panoramas, load_panorama, render_view
from .pipeline import BuiltinModel
from .rendering import through_jpeg
from .tone_curves import HDR_PEAK, Array
from .validation_renderings import RENDERINGS

DEGREES, FIELD_OF_VIEW = 0.1, 70.0
"""By how much the camera turns from frame to frame, and what it sees."""
WHITE_SHARE = 0.05
"""Share of the first frame that is above white."""
NOISE, JPEG_QUALITY = 1.2, 85
"""Standard deviation of the noise, in codes of 255, and how frames are compressed."""
BRIGHT, LITTLE_LIGHT = 0.95, 1 / 64


def pan(panorama: Array, rendering: str, *, frames: int, size: int, seed: int = 0) -> list[Tensor]:
    """Frames `[1,3,H,W]` in [0,1] of a camera that turns slowly, with noise and compression."""
    rng = np.random.default_rng(seed)
    views = [View(yaw=DEGREES * number, pitch=5, roll=0, fov=FIELD_OF_VIEW) for number in range(frames)]
    scenes = [render_view(panorama, view, size, size) for view in views]
    white = np.quantile(scenes[0].max(axis=-1), 1 - WHITE_SHARE)
    lit = [np.clip(scene / white, 0, HDR_PEAK).astype(np.float32) for scene in scenes]
    return [filmed(rng, RENDERINGS[rendering](hdr, 0)[0]) for hdr in lit]


def filmed(rng: np.random.Generator, sdr: Array) -> Tensor:
    noisy = np.clip(255 * sdr + rng.normal(0, NOISE, sdr.shape), 0, 255).round().astype(np.uint8)
    return to_bchw(through_jpeg(noisy, JPEG_QUALITY).astype(np.float32) / 255)[None]


def flicker(frames: Sequence[Tensor], hdr: Iterator[Tensor]) -> float:
    """Standard deviation of the changes, in stops, that bright areas make from frame to frame."""
    means = []
    for sdr, picture in zip(frames, hdr, strict=True):
        bright = sdr.amax(dim=1) > BRIGHT
        means.append(float(torch.log2(picture.mean(dim=1)[bright] + LITTLE_LIGHT).mean()))
    return float(np.diff(means).std())


@torch.no_grad()
def flicker_of_both(model: BuiltinModel, frames: Sequence[Tensor]) -> tuple[float, float]:
    """Each frame by itself, and steadied.

    Raises: ConfigError when the model has no tone net.
    """
    net = model.tone_net
    if net is None:
        raise ConfigError("films are steadied by the model's tone net; these weights bring none")
    maps = [model.coded_gain_map(sdr) for sdr in frames]
    both = zip(maps, frames, strict=True)
    alone = [read_tones(small, sdr, coding=model.info.coding, net=net) for small, sdr in both]

    def hdr(readings: Sequence[ToneReading]) -> Iterator[Tensor]:
        for small, sdr, reading in zip(maps, frames, readings, strict=True):
            gain_map = finished_gain_map(small, sdr, model.info, net=net, reading=reading)
            yield merge_hdr(sdr=sdr, gain_map=gain_map, spec=model.info.spec)

    return flicker(frames, hdr(alone)), flicker(frames, hdr(steadied(alone)))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--panoramas", type=Path, required=True, help="folder of validation .hdr files")
    parser.add_argument("--weights", type=Path, default=Path("weights"))
    parser.add_argument("--renderings", nargs="+", choices=RENDERINGS, default=["clip", "curve"])
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--size", type=int, default=512)
    options = parser.parse_args(arguments)
    model = BuiltinModel.load(options.weights)
    print("| stops from frame to frame | alone | film |\n|---|---|---|")
    for path in find_panoramas(options.panoramas):
        panorama = load_panorama(path)
        for rendering in options.renderings:
            frames = pan(panorama, rendering, frames=options.frames, size=options.size)
            alone, film = flicker_of_both(model, frames)
            print(f"| {path.stem}, {rendering} | {alone:.3f} | {film:.3f} |")


if __name__ == "__main__":
    raise SystemExit(exit_code(main))
