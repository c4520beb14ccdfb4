"""Fits the highlight net of the built-in model (`gm_core.highlights`) to cached pictures that show white."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import avg_pool2d

from gm_core.clipping import white_share
from gm_core.highlights import GAIN_CLUE, HIGHLIGHTS_SIDE, WHITE_CLUE, HighlightNet, highlight_clues
from gm_core.tone_curves import fit_curves
from training.export import save_whole

from .cache import Rows, gain_in_stops, join
from .loop import fit_for

log = logging.getLogger(__name__)
LEAST_WHITE, MOST_WHITE = 0.003, 0.5
"""Shares of white pixels between which a sample has something to teach."""
FITTED_EVERY = 4
"""Every n-th pixel in each direction shows which curves a sample follows."""
CURVE_NOISE = 0.4
"""Standard deviation in stops of what tone nets say of white: they do not know the true curve."""
MOST_STOPS = 4.0
DROPOUT = 0.1
PART = 32


def highlight_rows(pictures: Rows) -> Rows:
    """Of the samples of a shard that show some white: `clues` `[N,CLUES,S,S]`, and the stops of the white
    pixels at each place beyond the curves that fit the sample best, `wanted` `[N,1,S,S]`; float16.
    """
    white = (white_share(pictures["sdr"].float() / 255) > 0.5).float().mean(dim=(1, 2, 3))
    chosen = ((white > LEAST_WHITE) & (white < MOST_WHITE)).nonzero()[:, 0]
    return join([_rows(pictures, part) for part in chosen.split(PART)])


def _rows(pictures: Rows, chosen: Tensor) -> Rows:
    sdr = pictures["sdr"][chosen].float() / 255
    gain = gain_in_stops(pictures["gain_map"][chosen])
    some = (..., slice(1, None, FITTED_EVERY), slice(2, None, FITTED_EVERY))
    curves = fit_curves(sdr[some], gain[some])
    share, step = white_share(sdr), sdr.shape[-1] // HIGHLIGHTS_SIDE
    beyond = (gain - curves.cautious_gain(sdr)).mean(dim=1, keepdim=True).clamp(-MOST_STOPS, MOST_STOPS)
    wanted = avg_pool2d(share * beyond, step) / avg_pool2d(share, step).clamp(min=1e-3)
    return {
        "clues": highlight_clues(sdr, curves.gain(sdr).mean(dim=1, keepdim=True)).half(),
        "wanted": wanted.half(),
    }


def loss_of(net: HighlightNet, rows: Rows, chosen: Tensor) -> Tensor:
    """Mean square of the missing stops where there is white, twice as much white counting 1.4 times."""
    clues, wanted = rows["clues"][chosen].float(), rows["wanted"][chosen].float()
    if torch.rand(()) < 0.5:
        clues, wanted = clues.flip(-1), wanted.flip(-1)
    white = clues[:, WHITE_CLUE, None]
    noise = CURVE_NOISE * torch.randn(len(clues), 1, 1, 1) * white
    clues[:, GAIN_CLUE, None] += noise / 4
    weight = white / white.mean(dim=(1, 2, 3), keepdim=True).clamp(min=1e-3).sqrt()
    with torch.autocast("cpu", torch.bfloat16):
        found = net(clues)
    return (weight * (found.float() - wanted).square()).sum() / weight.sum()


def fit(rows: Rows, *, minutes: float, lr: float = 2e-3, batch: int = 32) -> HighlightNet:
    """The averaged net after `minutes`; logs the mean square of the missing stops."""
    net = HighlightNet(dropout=DROPOUT)

    def draw() -> tuple[Tensor, Tensor]:
        loss = loss_of(net, rows, torch.randint(len(rows["clues"]), (batch,)))
        return loss, loss.detach()

    fit_for(net, draw, minutes=minutes, lr=lr, weight_decay=0.01, most_gradient=1.0)
    return net


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
    shards = sorted(options.pictures.glob("*.safetensors"))
    rows = join([highlight_rows(load_file(path)) for path in shards])
    if not len(rows["clues"]):
        raise SystemExit(f"{options.pictures}: no sample shows white; training.builtin.cache makes more")
    log.info("%d samples with white in them", len(rows["clues"]))
    torch.manual_seed(options.seed)
    save_whole(fit(rows, minutes=options.minutes).state_dict(), options.output, {})


if __name__ == "__main__":
    main()
