"""Fits the tone net of the built-in model (`gm_core.tone.net`) to the statistics of cached pictures."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from gm_core.tone.curves import ToneCurves
from gm_core.tone.net import ToneNet
from training.exit_codes import exit_code
from training.tensor_files import save_whole

from .cache import Rows, gain_in_stops, join, shard_files
from .loop import fit_for
from .objective import HIGHLIGHT_WEIGHT, PerceptualScale, highlight_error, picture_error

log = logging.getLogger(__name__)
PIXELS = 768
"""Pixels looked at of each sample; its statistics are of all of them."""
ANCHOR_WEIGHT = 1.0
STATISTICS_NOISE, DROPOUT = 0.3, 0.1


def tone_rows(pictures: Rows) -> Rows:
    """What the tone net's training needs of a shard: `statistics`, and pixels evenly spread over `sdr` and
    `gain_map`, uint8 `[N,3,1,PIXELS]`.
    """
    step = pictures["sdr"][0, 0].numel() // PIXELS
    pixels = {name: pictures[name].flatten(2)[:, :, None, ::step].clone() for name in ("sdr", "gain_map")}
    return {"statistics": pictures["statistics"], **pixels}


def load_tone_rows(folder: Path) -> Rows:
    """`tone_rows` of all shards of a folder that `training.builtin.cache` wrote."""
    return join([tone_rows(load_file(path)) for path in shard_files(folder)])


def anchor_error(sdr: Tensor, gain: Tensor) -> Tensor:
    """Stops by which the mid-tones gain or lose on average; the loss ignores exposure, users do not."""
    weight = torch.exp(-0.5 * ((sdr.mean(dim=1, keepdim=True) - 0.45) / 0.18) ** 2) + 1e-3
    return ((weight * gain).mean(dim=(1, 2, 3)) / weight.mean(dim=(1, 2, 3))).abs().mean()


def new_net(statistics: Tensor, *, width: int) -> ToneNet:
    """A net that standardises by these statistics and starts at "no gain"."""
    net = ToneNet(width=width, dropout=DROPOUT)
    net.mean, net.scale = statistics.mean(dim=0), statistics.std(dim=0) + 0.05
    for parameter in net.layers[-1].parameters():
        torch.nn.init.zeros_(parameter)
    return net


def unclear(net: ToneNet, statistics: Tensor) -> Tensor:
    """Statistics `[N,STATISTICS]` with noise, so that no scene is told by them."""
    return statistics + STATISTICS_NOISE * net.scale * torch.randn_like(statistics)


def loss_of(net: ToneNet, rows: Rows, chosen: Tensor, scale: PerceptualScale) -> tuple[Tensor, Tensor]:
    """The loss of the chosen samples on a third of their pixels, and its part in dB."""
    pixels = torch.randperm(rows["sdr"].shape[-1])[: PIXELS // 3]
    sdr = rows["sdr"][chosen][..., pixels].float() / 255
    wanted = gain_in_stops(rows["gain_map"][chosen][..., pixels])
    statistics = rows["statistics"][chosen]
    curves: ToneCurves = net(unclear(net, statistics) if net.training else statistics)
    gain = curves.gain(sdr)
    decibels = picture_error(scale, sdr, gain, wanted).mean()
    highlights = highlight_error(sdr, gain, wanted).mean()
    loss = decibels + HIGHLIGHT_WEIGHT * highlights + ANCHOR_WEIGHT * anchor_error(sdr, gain)
    return loss, decibels.detach()


def fit(net: ToneNet, rows: Rows, *, minutes: float, lr: float = 1e-3, batch: int = 128) -> None:
    """Trains `net` for `minutes` and leaves it averaged; logs the picture's error in dB."""
    scale = PerceptualScale()
    fit_for(
        net,
        lambda: loss_of(net, rows, torch.randint(len(rows["sdr"]), (batch,)), scale),
        minutes=minutes,
        lr=lr,
        weight_decay=0.05,
    )


def linear_layers(net: ToneNet) -> list[nn.Linear]:
    return [layer for layer in net.layers if isinstance(layer, nn.Linear)]


def average_of(nets: list[ToneNet]) -> ToneNet:
    """One wide net whose answer is the mean of all nets' answers; they share one standardisation."""
    wide = ToneNet(width=sum(linear_layers(net)[0].out_features for net in nets))
    wide.mean, wide.scale = nets[0].mean, nets[0].scale
    first, second, last = linear_layers(wide)
    firsts, seconds, lasts = zip(*map(linear_layers, nets), strict=True)
    with torch.no_grad():
        first.weight.copy_(torch.cat([layer.weight for layer in firsts]))
        first.bias.copy_(torch.cat([layer.bias for layer in firsts]))
        second.weight.copy_(torch.block_diag(*(layer.weight for layer in seconds)))
        second.bias.copy_(torch.cat([layer.bias for layer in seconds]))
        last.weight.copy_(torch.cat([layer.weight for layer in lasts], dim=1) / len(nets))
        last.bias.copy_(torch.stack([layer.bias for layer in lasts]).mean(dim=0))
    return wide


def parts_of(wide: ToneNet, count: int) -> list[ToneNet]:
    """The nets that `average_of` made a wide one of, with dropout for further training."""
    width = linear_layers(wide)[0].out_features // count
    parts = []
    for part in (slice(start, start + width) for start in range(0, count * width, width)):
        net = ToneNet(width=width, dropout=DROPOUT)
        net.mean, net.scale = wide.mean, wide.scale
        (first, second, last), (wide_first, wide_second, wide_last) = map(linear_layers, (net, wide))
        with torch.no_grad():
            first.weight.copy_(wide_first.weight[part])
            first.bias.copy_(wide_first.bias[part])
            second.weight.copy_(wide_second.weight[part, part])
            second.bias.copy_(wide_second.bias[part])
            last.weight.copy_(count * wide_last.weight[:, part])
            last.bias.copy_(wide_last.bias)
        parts.append(net)
    return parts


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--pictures", type=Path, required=True, help="folder written by training.builtin.cache"
    )
    parser.add_argument("--output", type=Path, required=True, help="trained net (.safetensors)")
    parser.add_argument("--minutes", type=float, default=3, help="for each net")
    parser.add_argument("--nets", type=int, default=3, help="nets fitted from different seeds and averaged")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    rows = load_tone_rows(options.pictures)
    log.info("%d samples", len(rows["sdr"]))
    nets = []
    for seed in range(options.seed, options.seed + options.nets):
        torch.manual_seed(seed)
        nets.append(new_net(rows["statistics"], width=options.width))
        fit(nets[-1], rows, minutes=options.minutes)
    save_whole(average_of(nets).state_dict(), options.output, {})


if __name__ == "__main__":
    raise SystemExit(exit_code(main))
