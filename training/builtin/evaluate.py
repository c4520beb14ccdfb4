"""Scores the built-in model on scenes it never saw, beside linearised SDR and the standard's expansion."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable
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
from training.errors import ConfigError
from training.exit_codes import exit_code

from .expansion import bt2446_a
from .panoramas import find_panoramas
from .pipeline import BuiltinModel
from .tone_curves import HDR_PEAK
from .validation import Case, plain_cases, validation_cases

log = logging.getLogger(__name__)
Row = dict[str, Any]
"""`method`, `scene`, `rendering`, and the figures of `scores`."""
Predictor = Callable[[Tensor], Tensor]
"""SDR picture `[1,3,H,W]` display-encoded to HDR `[1,3,H,W]` linear, 1.0 = SDR white."""
Metric = Callable[[Tensor, Tensor], float]
"""Prediction and truth, `[1,3,H,W]` linear, to a figure."""
FIGURES = ("pu21", "highlights", "highlights_crf", "log_rmse", "delta_e", "fhlp_off", "ehl_off")
WHITE_NITS = 100.0


def color_video_vdp() -> Metric:
    """ColorVideoVDP's quality of a picture on an HDR display, in JOD (10 = no visible difference).

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import pycvvdp  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ConfigError("--jod needs ColorVideoVDP: pip install cvvdp") from error
    metric = pycvvdp.cvvdp(display_name="standard_hdr_linear", device=torch.device("cpu"))
    nits = lambda picture: WHITE_NITS * picture[0]  # noqa: E731
    return lambda hdr, truth: float(metric.predict(nits(hdr), nits(truth), dim_order="CHW")[0])


def scores(hdr: Tensor, truth: Tensor, jod: Metric | None = None) -> dict[str, float]:
    """Exposure-aligned figures of one picture (docs/results.md): dB, dB in highlights, stops, delta E, and
    the distances of highlights' share (FHLP) and excess (EHL) to the truth's, in per cent.
    """
    hdr = hdr.clamp(0, HDR_PEAK)
    aligned, mask = align(hdr, truth), highlight_mask(truth)
    volumes = [100 * torch.cat(highlight_volume(picture)) for picture in (aligned, truth)]
    share, excess = (volumes[0] - volumes[1]).abs().tolist()
    corrected = crf_correct(aligned, truth)
    figures = {
        "pu21": float(pu21_psnr(aligned, truth)),
        "highlights": float(pu21_psnr(aligned, truth, mask=mask)),
        "highlights_crf": float(pu21_psnr(corrected, truth, mask=mask)),
        "log_rmse": float(log_rmse(aligned, truth)),
        "delta_e": float(delta_e_itp(aligned, truth)),
        "fhlp_off": share,
        "ehl_off": excess,
    }
    return figures | ({"jod": jod(aligned, truth)} if jod else {})


def departure(hdr: Tensor, sdr: Tensor) -> float:
    """95th percentile of the stops by which a prediction departs from linearised SDR, up to exposure."""
    stops = [torch.log2(picture.amax(dim=1).clamp(min=0.01)) for picture in (hdr, srgb_to_linear(sdr))]
    difference = (stops[0] - stops[1]).flatten()
    return float((difference - difference.median()).abs().quantile(0.95))


def evaluate(predictors: dict[str, Predictor], cases: list[Case], jod: Metric | None = None) -> list[Row]:
    """One row per case and method."""
    rows: list[Row] = []
    for case in cases:
        for method, predict in predictors.items():
            with torch.no_grad():
                figures = scores(predict(case.sdr), case.truth, jod)
            rows.append({"method": method, "scene": case.scene, "rendering": case.rendering, **figures})
    return rows


def summary(rows: list[Row], figure: str = "pu21") -> str:
    """Markdown table: methods down, renderings across, means over pictures, last column the mean of
    renderings.
    """
    renderings = sorted({str(row["rendering"]) for row in rows})
    lines = [f"| {figure} | " + " | ".join(renderings) + " | mean |", "|---" * (len(renderings) + 2) + "|"]
    for method in dict.fromkeys(str(row["method"]) for row in rows):
        own = [row for row in rows if row["method"] == method]
        means = [np.mean([row[figure] for row in own if row["rendering"] == name]) for name in renderings]
        cells = " | ".join(f"{value:.2f}" for value in [*means, np.mean(means)])
        lines.append(f"| {method} | {cells} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--panoramas", type=Path, required=True, help="folder of validation .hdr files")
    parser.add_argument("--weights", type=Path, default=Path("weights"))
    parser.add_argument(
        "--steps", type=int, nargs="+", default=[0], help="sampling steps to compare (0 = the model's)"
    )
    parser.add_argument("--views", type=int, default=6)
    parser.add_argument("--jod", action="store_true", help="ColorVideoVDP as well (pip install cvvdp)")
    parser.add_argument("--output", type=Path, help="write all figures as JSON")
    options = parser.parse_args(arguments)
    scenes, model = find_panoramas(options.panoramas), BuiltinModel.load(options.weights)
    predictors: dict[str, Predictor] = {"linearised SDR": srgb_to_linear, "BT.2446 method A": bt2446_a}
    for steps in options.steps:
        name = f"built-in, {model.info.steps_for(steps)} steps"
        predictors[name] = lambda sdr, n=steps: model(sdr, steps=n)
    jod = color_video_vdp() if options.jod else None
    rows = evaluate(predictors, list(validation_cases(scenes, views=options.views)), jod)
    for figure in (*FIGURES, "jod") if jod else FIGURES:
        print(summary(rows, figure), end="\n\n")
    plain = [departure(model(case.sdr), case.sdr) for case in plain_cases(scenes, views=options.views)]
    print(f"pictures with nothing to gain: off by {np.mean(plain):.2f} stops, worst {max(plain):.2f}")
    if options.output:
        options.output.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    raise SystemExit(exit_code(main))
