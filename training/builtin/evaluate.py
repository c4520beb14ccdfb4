"""Scores the built-in model on scenes it never saw: aligned PU21-PSNR beside the linearised SDR picture."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gm_core.color import srgb_to_linear
from gm_core.metrics import (
    align,
    crf_correct,
    delta_e_itp,
    highlight_mask,
    highlight_volume,
    log_rmse,
    pu21_psnr,
)

from .cache import find, to_bchw
from .panoramas import View, load_panorama, render_view
from .rendering import HDR_PEAK, srgb_encode

log = logging.getLogger(__name__)
HIGH_RANGE, MOST_TRIES = 3.0, 200
"""Light that a validation picture's brightest hundredth exceeds, and crops to look at to find such ones."""
GOLDEN_RATIO, LOG_MU = 1.618, 5000.0
Row = dict[str, Any]
"""`method`, `scene`, `rendering`, and the figures of `scores`."""
Predictor = Callable[[Tensor], Tensor]
"""SDR picture `[1,3,H,W]` display-encoded to HDR `[1,3,H,W]` linear, 1.0 = SDR white."""


@dataclass(frozen=True)
class Case:
    """One validation picture: `sdr` `[1,3,H,W]` 8-bit values in [0,1], `truth` `[1,3,H,W]` linear."""

    scene: str
    rendering: str
    sdr: Tensor
    truth: Tensor


def sdr_renderings(hdr: np.ndarray) -> dict[str, np.ndarray]:
    """Tone curves with fixed parameters: none is drawn exactly by `rendering.py`'s random family."""
    shoulder = 1.25 * hdr / (hdr + 0.35)
    camera = np.minimum(1.6 * hdr**0.75 / (hdr**0.75 + 0.6), 1.0)
    return {
        "clip": srgb_encode(hdr),
        "log": np.log1p(LOG_MU * hdr / HDR_PEAK) / np.log1p(LOG_MU),
        "curve": srgb_encode(np.minimum(shoulder, 1.0) ** 1.15),
        "camera": camera**0.9,
    }


def validation_pictures(panorama: np.ndarray, rng: np.random.Generator, size: int) -> Iterator[np.ndarray]:
    """Endless crops, a random 1.5 % to 25 % of each above white, of those that have high dynamic range."""
    for index in count():
        view = View(
            yaw=360 * (index / GOLDEN_RATIO + 0.1 * rng.random()),
            pitch=rng.uniform(-15, 30),
            roll=0,
            fov=rng.uniform(55, 90),
        )
        scene = render_view(panorama, view, size, size)
        share = float(np.exp(rng.uniform(np.log(0.015), np.log(0.25))))
        hdr = np.clip(scene / np.quantile(scene.max(axis=-1), 1 - share), 0, HDR_PEAK)
        if np.quantile(hdr.max(axis=-1), 0.99) > HIGH_RANGE or index > MOST_TRIES:
            yield hdr.astype(np.float32)


def validation_cases(scenes: list[Path], *, size: int = 512, views: int = 6, seed: int = 1) -> Iterator[Case]:
    """`views` crops of every scene in every rendering."""
    for path in scenes:
        rng, panorama = np.random.default_rng([seed, len(path.stem)]), load_panorama(path)
        for hdr in islice(validation_pictures(panorama, rng, size), views):
            truth = to_bchw(hdr)[None]
            for name, sdr in sdr_renderings(hdr).items():
                codes = np.round(np.clip(sdr, 0, 1) * 255) / 255
                yield Case(path.stem, name, to_bchw(codes.astype(np.float32))[None], truth)


def scores(hdr: Tensor, truth: Tensor) -> dict[str, float]:
    """Exposure-aligned figures of one picture (see RESULTS page): dB, dB in highlights, stops, delta E, FHLP,
    EHL.
    """
    hdr = hdr.clamp(0, HDR_PEAK)
    aligned, mask = align(hdr, truth), highlight_mask(truth)
    share, excess = highlight_volume(aligned)
    corrected = crf_correct(aligned, truth)
    return {
        "pu21": float(pu21_psnr(aligned, truth)),
        "highlights": float(pu21_psnr(aligned, truth, mask=mask)),
        "highlights_crf": float(pu21_psnr(corrected, truth, mask=mask)),
        "log_rmse": float(log_rmse(aligned, truth)),
        "delta_e": float(delta_e_itp(aligned, truth)),
        "fhlp": float(share),
        "ehl": float(excess),
    }


def evaluate(predictors: dict[str, Predictor], cases: list[Case]) -> list[Row]:
    """One row per case and method."""
    rows: list[Row] = []
    for case in cases:
        for method, predict in predictors.items():
            with torch.no_grad():
                figures = scores(predict(case.sdr), case.truth)
            rows.append({"method": method, "scene": case.scene, "rendering": case.rendering, **figures})
    return rows


def summary(rows: list[Row], figure: str = "pu21") -> str:
    """Markdown table: methods down, renderings across, means over pictures, last column the mean of
    renderings.
    """
    renderings = sorted({str(row["rendering"]) for row in rows})
    lines = [f"| {figure} | " + " | ".join(renderings) + " | mean |", "|---" * (len(renderings) + 2) + "|"]
    for method in dict.fromkeys(str(row["method"]) for row in rows):
        means = [
            float(
                np.mean(
                    [row[figure] for row in rows if (row["method"], row["rendering"]) == (method, name)],
                    dtype=np.float64,
                )
            )
            for name in renderings
        ]
        cells = " | ".join(f"{value:.2f}" for value in [*means, float(np.mean(means))])
        lines.append(f"| {method} | {cells} |")
    return "\n".join(lines)


def linearised_sdr(sdr: Tensor) -> Tensor:
    """The baseline that does nothing."""
    return srgb_to_linear(sdr)


def main(arguments: list[str] | None = None) -> None:
    from .pipeline import BuiltinModel

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--panoramas", type=Path, required=True, help="folder of validation .hdr files")
    parser.add_argument("--weights", type=Path, default=Path("weights"))
    parser.add_argument(
        "--steps", type=int, nargs="+", default=[0], help="sampling steps to compare (0 = the model's)"
    )
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--output", type=Path, help="write all figures as JSON")
    options = parser.parse_args(arguments)
    model = BuiltinModel.load(options.weights)
    predictors: dict[str, Predictor] = {"linearised SDR": linearised_sdr}
    for steps in options.steps:
        predictors[f"built-in, {steps or model.info.steps} steps"] = lambda sdr, n=steps: model(sdr, steps=n)
    rows = evaluate(predictors, list(validation_cases(find(options.panoramas, "*.hdr"), views=options.views)))
    for figure in ("pu21", "highlights", "highlights_crf", "log_rmse", "delta_e"):
        print(summary(rows, figure), end="\n\n")
    if options.output:
        options.output.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
