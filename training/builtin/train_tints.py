"""Fits the tint net of the built-in model (`gm_core.tone.tints`) to the colours that clipped areas of cached
pictures really have.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import avg_pool2d

from gm_core.tone.clipping import white_share, whiteness
from gm_core.tone.look import STEP
from gm_core.tone.tints import CLIPPED_CLUES, GAIN_CLUE, TintNet, tint_clues
from training.errors import DatasetError
from training.exit_codes import exit_code
from training.tensor_files import save_whole

from .cache import Rows, gain_in_stops, join, shard_files
from .train_highlights import (
    BEST_NOISE,
    DROPOUT,
    best_curves,
    fit_places,
    mean_of,
    place_weight,
    seen_on_displays,
    showing_white,
    varied_view,
)

log = logging.getLogger(__name__)


@torch.no_grad()
def tint_rows(pictures: Rows) -> Rows:
    """Of samples: `clues` `[N,TINT_CLUES,S,S]`, how much of each place is clipped in all channels, `white`
    `[N,1,S,S]`, and by how many stops each channel there is above the mean of them, `tint` `[N,3,S,S]`; all
    float16.
    """
    sdr, curves = pictures["sdr"].float() / 255, best_curves(pictures)
    gain = gain_in_stops(pictures["gain_map"])
    exposure = mean_of(gain - curves.cautious_gain(sdr), 1 - white_share(sdr))
    light = seen_on_displays(gain - exposure)  # white shows as much light as the gain, stop for stop
    tint, white = light - light.mean(dim=1, keepdim=True), whiteness(sdr.amin(dim=1, keepdim=True))
    share = avg_pool2d(white, STEP)
    rows = {
        "clues": tint_clues(sdr, curves.gain(sdr)),
        "white": share,
        "tint": avg_pool2d(white * tint, STEP) / share.clamp(min=1e-3),
    }
    return {name: column.half() for name, column in rows.items()}


def loss_of(net: TintNet, batch: Rows) -> Tensor:
    """Mean square of the stops between channels that are all clipped."""
    weight = place_weight(batch["white"])
    return (weight * (net(batch["clues"]) - batch["tint"]).square()).sum() / weight.sum()


def varied(rows: Rows, chosen: Tensor) -> Rows:
    """The chosen rows as float32, from another view, what the curves say of white off by some stops."""
    batch = varied_view(rows, chosen)
    white = batch["clues"][:, CLIPPED_CLUES].amax(dim=1, keepdim=True)
    batch["clues"][:, GAIN_CLUE, None] += BEST_NOISE / 4 * torch.randn(len(chosen), 1, 1, 1) * white
    return batch


def fit(net: TintNet, rows: Rows, *, minutes: float, lr: float = 2e-3) -> None:
    """Trains `net` for `minutes` and leaves it averaged; logs its loss."""
    fit_places(net, rows, lambda chosen: loss_of(net, varied(rows, chosen)), minutes=minutes, lr=lr)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--pictures", type=Path, required=True, help="folder written by training.builtin.cache"
    )
    parser.add_argument("--output", type=Path, required=True, help="trained net (.safetensors)")
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.manual_seed(options.seed)
    parts = [
        tint_rows(pictures)
        for path in shard_files(options.pictures)
        for pictures in showing_white(load_file(path))
    ]
    if not parts:
        raise DatasetError(f"{options.pictures}: no sample shows white; training.builtin.cache makes more")
    net, rows = TintNet(dropout=DROPOUT), join(parts)
    log.info("%d samples with white in them", len(rows["clues"]))
    fit(net, rows, minutes=options.minutes)
    save_whole(net.state_dict(), options.output, {})


if __name__ == "__main__":
    raise SystemExit(exit_code(main))
