"""Fits the highlight net of the built-in model (`gm_core.tone.highlights`) to what curves leave over where
cached pictures are white: first the curves that fit a sample best, then those that tone nets infer.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from gm_core.tone.clipping import white_share
from gm_core.tone.curves import ToneCurves, fit_curves
from gm_core.tone.highlights import (
    GAIN_CLUE,
    WHITE_CLUE,
    HighlightNet,
    highlight_clues,
)
from gm_core.tone.look import PLACES_SIDE
from gm_core.tone.net import ToneNet
from training.errors import DatasetError
from training.exit_codes import exit_code
from training.tensor_files import save_whole

from .cache import Rows, gain_in_stops, join, shard_files
from .loop import fit_for, quick_networks
from .train_tone import unclear

log = logging.getLogger(__name__)
CurvesOf = Callable[[Rows], ToneCurves]
"""Samples of a shard to their curves."""
LEAST_WHITE, MOST_WHITE = 0.0005, 0.9
"""Shares of white pixels between which a sample has something to teach."""
FITTED_EVERY = 4
"""Every n-th pixel in each direction shows which curves a sample follows."""
BEST_NOISE, INFERRED_NOISE = 0.4, 0.15
"""Standard deviations in stops of what is added to the best curves of a sample, which nobody knows, and to a
tone net's, which errs more on scenes that it never saw.
"""
BEYOND_DISPLAYS, HARDLY_SEEN = 3.0, 0.3
"""Stops from which hardly any display shows a difference, and how much one counts from there."""
LEAST_CROP = 20
"""Pixels per side, of `PLACES_SIDE`, of the smallest part of a sample that is shown for itself."""
DROPOUT = 0.1
PART, BATCH = 32, 32


def best_curves(pictures: Rows) -> ToneCurves:
    """The curves that fit the samples: what they leave over is a matter of place alone."""
    some = (..., slice(1, None, FITTED_EVERY), slice(2, None, FITTED_EVERY))
    return fit_curves(pictures["sdr"][some].float() / 255, gain_in_stops(pictures["gain_map"][some]))


def inferred_curves(tone_net: ToneNet) -> CurvesOf:
    """The curves that a tone net tells from statistics as unclear as in its training: it knows these samples,
    and would leave less over than it does of pictures that it never saw.
    """
    return lambda pictures: tone_net(unclear(tone_net, pictures["statistics"])).rising()


def showing_white(pictures: Rows) -> list[Rows]:
    """The samples of a shard that show some white, in parts."""
    white = (white_share(pictures["sdr"].float() / 255) > 0.5).float().mean(dim=(1, 2, 3))
    chosen = ((white > LEAST_WHITE) & (white < MOST_WHITE)).nonzero()[:, 0]
    parts = chosen.split(PART) if len(chosen) else ()
    return [{name: column[part] for name, column in pictures.items()} for part in parts]


@torch.no_grad()
def highlight_rows(pictures: Rows, curves_of: CurvesOf) -> Rows:
    """Of samples: `clues` `[N,CLUES,S,S]`, the stops that curves give white pixels at each place, `given`
    `[N,1,S,S]`, and those missing, `wanted`; all float16.
    """
    sdr, curves = pictures["sdr"].float() / 255, curves_of(pictures)
    given = curves.cautious_gain(sdr)
    missing = gain_in_stops(pictures["gain_map"]) - given
    share = white_share(sdr)
    missing = missing - mean_of(missing, 1 - share)  # an exposure that the whole picture misses is not ours
    rows = {
        "clues": highlight_clues(sdr, curves.gain(sdr).mean(dim=1, keepdim=True)),
        "given": mean_in_white(given, share),
        "wanted": mean_in_white(missing, share),
    }
    return {name: column.half() for name, column in rows.items()}


def mean_in_white(stops: Tensor, share: Tensor) -> Tensor:
    """Mean over the white pixels at each place the net sees, `[N,3,H,W]` to `[N,1,S,S]`."""
    step = stops.shape[-1] // PLACES_SIDE
    sums = avg_pool2d(share * stops.mean(dim=1, keepdim=True), step)
    return sums / avg_pool2d(share, step).clamp(min=1e-3)


def mean_of(stops: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean over the pixels, `[N,3,H,W]` to `[N,1,1,1]`."""
    total = (weight * stops.mean(dim=1, keepdim=True)).sum(dim=(1, 2, 3), keepdim=True)
    return total / weight.sum(dim=(1, 2, 3), keepdim=True).clamp(min=1)


def seen_on_displays(stops: Tensor) -> Tensor:
    """Stops above SDR white as far as displays tell them apart."""
    return stops - (1 - HARDLY_SEEN) * (stops - BEYOND_DISPLAYS).clamp(min=0)


def varied_view(rows: Rows, chosen: Tensor) -> Rows:
    """The chosen rows as float32: half of the time mirrored, half of the time a part of them."""
    batch = {name: column[chosen].float() for name, column in rows.items()}
    if torch.rand(()) < 0.5:
        batch = {name: column.flip(-1) for name, column in batch.items()}
    if torch.rand(()) < 0.5:
        side = int(torch.randint(LEAST_CROP, PLACES_SIDE, ()))
        top, left = torch.randint(PLACES_SIDE - side + 1, (2,)).tolist()
        batch = {name: column[..., top : top + side, left : left + side] for name, column in batch.items()}
    return batch


def varied(rows: Rows, chosen: Tensor, noise: float) -> Rows:
    """The chosen rows from another view, the curves off by some stops."""
    batch = varied_view(rows, chosen)
    off = noise * torch.randn(len(chosen), 1, 1, 1)
    batch["clues"][:, GAIN_CLUE, None] += off / 4 * batch["clues"][:, WHITE_CLUE, None]
    return batch | {"given": batch["given"] + off, "wanted": batch["wanted"] - off}


def place_weight(white: Tensor) -> Tensor:
    """How much each place counts by the `white` `[N,1,S,S]` in it: twice as much of a sample, 1.2 times."""
    return white / white.mean(dim=(1, 2, 3), keepdim=True).clamp(min=1e-4) ** 0.75


def loss_of(net: HighlightNet, batch: Rows) -> Tensor:
    """Mean square of the missing stops where there is white."""
    weight = place_weight(batch["clues"][:, WHITE_CLUE, None])
    with quick_networks():
        found = net(batch["clues"])
    reached, true = (seen_on_displays(batch["given"] + more) for more in (found.float(), batch["wanted"]))
    return (weight * (reached - true).square()).sum() / weight.sum()


def fit(net: HighlightNet, rows: Rows, *, noise: float, minutes: float, lr: float) -> None:
    """Trains `net` for `minutes` and leaves it averaged; logs the mean square of the missing stops."""
    fit_places(net, rows, lambda chosen: loss_of(net, varied(rows, chosen, noise)), minutes=minutes, lr=lr)


def fit_places(
    net: nn.Module, rows: Rows, loss_of_chosen: Callable[[Tensor], Tensor], *, minutes: float, lr: float
) -> None:
    """Trains a net for clipped areas by its loss on the `BATCH` rows whose numbers are given."""
    net.train()

    def draw() -> tuple[Tensor, Tensor]:
        loss = loss_of_chosen(torch.randint(len(rows["clues"]), (BATCH,)))
        return loss, loss.detach()

    fit_for(net, draw, minutes=minutes, lr=lr, weight_decay=0.01, most_gradient=1.0)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--pictures", type=Path, required=True, help="folder written by training.builtin.cache"
    )
    parser.add_argument("--tone-net", type=Path, required=True, help="file of train_tone: what is added to")
    parser.add_argument("--output", type=Path, required=True, help="trained net (.safetensors)")
    parser.add_argument("--minutes", type=float, default=18, help="two thirds of them on the best curves")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.manual_seed(options.seed)
    shards = shard_files(options.pictures)
    inferred = inferred_curves(ToneNet.from_weights(load_file(options.tone_net), str(options.tone_net)))
    best, left_over = [], []
    for path in shards:
        for pictures in showing_white(load_file(path)):
            best.append(highlight_rows(pictures, best_curves))
            left_over.append(highlight_rows(pictures, inferred))
    if not best:
        raise DatasetError(f"{options.pictures}: no sample shows white; training.builtin.cache makes more")
    net, rows = HighlightNet(dropout=DROPOUT), join(best)
    log.info("%d samples with white in them", len(rows["clues"]))
    fit(net, rows, noise=BEST_NOISE, minutes=options.minutes * 2 / 3, lr=2e-3)
    fit(net, join(left_over), noise=INFERRED_NOISE, minutes=options.minutes / 3, lr=1e-3)
    save_whole(net.state_dict(), options.output, {})


if __name__ == "__main__":
    raise SystemExit(exit_code(main))
