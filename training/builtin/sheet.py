"""Draws what the figures cannot say: predictions beside the truth at several exposures, with gain maps."""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from gm_core.color import linear_to_srgb, luminance, srgb_to_linear
from gm_core.gain_map import merge_hdr
from gm_core.metrics import align
from training.data.sources import pictures_below
from training.exit_codes import exit_code

from .cache import to_bchw
from .panoramas import find_panoramas
from .pipeline import BuiltinModel
from .samples import load_photo
from .validation import Case, validation_cases
from .validation_renderings import RENDERINGS

STOPS, WORST = (-2, -4), 2.0


def tiles(*pictures: Tensor, size: int) -> np.ndarray:
    """Display-encoded `[1,3,H,W]`, each a uint8 square of `size` pixels, side by side."""
    arrays = [picture[0].clamp(0, 1).permute(1, 2, 0).numpy() for picture in pictures]
    squares = [cv2.resize(array, (size, size), interpolation=cv2.INTER_AREA) for array in arrays]
    return np.round(np.concatenate(squares, axis=1) * 255).astype(np.uint8)


def error_map(hdr: Tensor, truth: Tensor) -> Tensor:
    """Red where a prediction is too bright, blue where it is too dark, full colour at `WORST` stops."""
    luminances = [luminance(picture, "bt709").clamp(min=0.01) for picture in (hdr, truth)]
    off = (torch.log2(luminances[0] / luminances[1]) / WORST).clamp(-1, 1)
    return torch.cat([1 + off.clamp(max=0), 1 - off.abs(), 1 - off.clamp(min=0)], dim=1)


def row(model: BuiltinModel, case: Case, size: int) -> np.ndarray:
    """SDR, predicted coded map, for every exposure the SDR picture, the prediction and the truth, then the
    prediction's error.
    """
    coded, hdr = predicted(model, case.sdr)
    flat, hdr = (align(picture, case.truth) for picture in (srgb_to_linear(case.sdr), hdr))
    return tiles(case.sdr, coded, *darker(flat, hdr, case.truth), error_map(hdr, case.truth), size=size)


def row_without_truth(model: BuiltinModel, sdr: Tensor, size: int) -> np.ndarray:
    """SDR, predicted coded map, for every exposure the SDR picture and the prediction."""
    coded, hdr = predicted(model, sdr)
    return tiles(sdr, coded, *darker(srgb_to_linear(sdr), hdr), size=size)


def predicted(model: BuiltinModel, sdr: Tensor) -> tuple[Tensor, Tensor]:
    """The coded map at full size, and HDR in linear light."""
    gain_map, spec = model.gain_map(sdr), model.info.spec
    coded = model.info.coding.from_gain_map(gain_map, spec=spec)
    return coded, merge_hdr(sdr=sdr, gain_map=gain_map, spec=spec)


def darker(*pictures: Tensor) -> list[Tensor]:
    """Linear pictures at every exposure, display-encoded."""
    return [linear_to_srgb((picture * 2.0**stops).clamp(0, 1)) for stops in STOPS for picture in pictures]


def load_square(path: Path) -> Tensor:
    """The middle of a picture file, `[1,3,S,S]` display-encoded."""
    picture = load_photo(path)
    side = min(picture.shape[:2])
    top, left = ((length - side) // 2 for length in picture.shape[:2])
    return to_bchw(picture[top : top + side, left : left + side])[None] / 255


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--panoramas", type=Path, help="folder of validation .hdr files")
    source.add_argument("--pictures", type=Path, help="folder of pictures whose truth nobody knows")
    parser.add_argument("--weights", type=Path, default=Path("weights"))
    parser.add_argument("--renderings", nargs="+", choices=RENDERINGS, default=["clip", "log"])
    parser.add_argument("--views", type=int, default=1)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--output", type=Path, required=True, help="picture file, .jpg or .png")
    options = parser.parse_args(arguments)
    model = BuiltinModel.load(options.weights)
    if options.pictures:
        files = pictures_below(options.pictures)
        if not files:
            parser.error(f"{options.pictures}: no picture found")
        rows = [row_without_truth(model, load_square(file), options.size) for file in files]
    else:
        scenes = find_panoramas(options.panoramas)
        cases = validation_cases(scenes, renderings=options.renderings, views=options.views)
        rows = [row(model, case, options.size) for case in cases]
    cv2.imwrite(str(options.output), np.concatenate(rows)[..., ::-1])


if __name__ == "__main__":
    raise SystemExit(exit_code(main))
