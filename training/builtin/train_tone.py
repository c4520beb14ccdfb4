"""Trains the tone net of the built-in model (`gm_core.tone`): gathers samples, then fits it to them."""

from __future__ import annotations

import argparse
import copy
import logging
import time
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from gm_core.tone import ToneCurves, ToneNet, picture_statistics
from training.export import save_whole

from .cache import add_scene_arguments, find, load_scenes, sample_rng, to_bchw
from .objective import HIGHLIGHT_WEIGHT, PerceptualScale, highlight_error, picture_error
from .samples import SCENE_SIDE, Scenes, make_sample
from .train import learning_rate, update_average

log = logging.getLogger(__name__)
PIXELS = 768
"""Pixels kept of each sample; its statistics are of all of them."""
ANCHOR_WEIGHT = 1.0
STATISTICS_NOISE = 0.3

Rows = dict[str, Tensor]
"""`statistics` `[N,STATISTICS]`, `sdr` uint8 and `gain` float16 (stops) `[N,3,1,PIXELS]`."""


def gather(scenes: Scenes, seed: int, part: int, count: int) -> Rows:
    """`count` samples reduced to what the tone net's training needs."""
    rows: dict[str, list[Tensor]] = {"statistics": [], "sdr": [], "gain": []}
    for start in range(0, count, 64):
        samples = [
            make_sample(sample_rng(seed, part, start + index), scenes, SCENE_SIDE) for index in range(64)
        ]
        sdr = torch.stack([to_bchw(sample.sdr) for sample in samples])
        gain = torch.stack([to_bchw(sample.gain) for sample in samples])
        chosen = torch.from_numpy(sample_rng(seed, part, start).permutation(SCENE_SIDE**2)[:PIXELS])
        rows["statistics"].append(picture_statistics(sdr / 255))
        rows["sdr"].append(sdr.flatten(2)[..., None, chosen].to(torch.uint8))
        rows["gain"].append(gain.flatten(2)[..., None, chosen].clamp(-6, 9).half())
    return {name: torch.cat(parts) for name, parts in rows.items()}


def anchor_error(sdr: Tensor, gain: Tensor) -> Tensor:
    """Stops by which the mid-tones gain or lose on average; the loss ignores exposure, users do not."""
    weight = torch.exp(-0.5 * ((sdr.mean(dim=1, keepdim=True) - 0.45) / 0.18) ** 2) + 1e-3
    return ((weight * gain).mean(dim=(1, 2, 3)) / weight.mean(dim=(1, 2, 3))).abs().mean()


def new_net(statistics: Tensor, *, width: int) -> ToneNet:
    """A net that standardises by these statistics and starts at "no gain"."""
    net = ToneNet(width=width, dropout=0.1)
    net.mean, net.scale = statistics.mean(dim=0), statistics.std(dim=0) + 0.05
    for parameter in net.layers[-1].parameters():
        torch.nn.init.zeros_(parameter)
    return net


def loss_of(net: ToneNet, rows: Rows, chosen: Tensor, scale: PerceptualScale) -> tuple[Tensor, Tensor]:
    """The loss of the chosen samples on a third of their pixels, and its part in dB."""
    pixels = torch.randperm(PIXELS)[: PIXELS // 3]
    sdr = rows["sdr"][chosen][..., pixels].float() / 255
    wanted = rows["gain"][chosen][..., pixels].float()
    statistics = rows["statistics"][chosen]
    noise = STATISTICS_NOISE * net.scale * torch.randn_like(statistics) if net.training else 0.0
    curves: ToneCurves = net(statistics + noise)
    gain = curves.gain(sdr)
    decibels = picture_error(scale, sdr, gain, wanted).mean()
    highlights = highlight_error(sdr, gain, wanted).mean()
    loss = decibels + HIGHLIGHT_WEIGHT * highlights + ANCHOR_WEIGHT * anchor_error(sdr, gain)
    return loss, decibels.detach()


def fit(rows: Rows, *, width: int, minutes: float, lr: float = 1e-3, batch: int = 128) -> ToneNet:
    """The averaged net after `minutes`."""
    net, scale = new_net(rows["statistics"], width=width), PerceptualScale()
    average = copy.deepcopy(net).eval()
    optimiser = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=0.05)
    start, step, running = time.monotonic(), 0, 0.0
    while (progress := (time.monotonic() - start) / (60 * minutes)) < 1:
        optimiser.param_groups[0]["lr"] = learning_rate(progress, step + 1, lr, warmup=100)
        loss, decibels = loss_of(net, rows, torch.randint(len(rows["sdr"]), (batch,)), scale)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        step, running = step + 1, running + float(decibels)
        update_average(average, net, step, longest=0.999)
        if step % 500 == 0:
            log.info("step %d  %.0f %%  picture %.3f dB", step, 100 * progress, running / 500)
            running = 0.0
    return average


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_scene_arguments(parser)
    parser.add_argument("--rows", type=Path, required=True, help="folder that keeps the gathered samples")
    parser.add_argument("--output", type=Path, help="trained net (.safetensors); without it, only gather")
    parser.add_argument("--samples", type=int, default=60000)
    parser.add_argument("--part-size", type=int, default=2048, help="samples a file; a multiple of 64")
    parser.add_argument("--minutes", type=float, default=6)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.manual_seed(options.seed)
    options.rows.mkdir(parents=True, exist_ok=True)
    scenes = load_scenes(options)
    size = options.part_size
    for part in range(-(-options.samples // size)):
        path = options.rows / f"{options.seed}_{part:04d}.safetensors"
        if not path.exists():
            save_whole(gather(scenes, options.seed, part, size), path, {})
            log.info("gathered %d samples", (part + 1) * size)
    if options.output:
        parts = [load_file(path) for path in find(options.rows, "*.safetensors")]
        rows = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        save_whole(fit(rows, width=options.width, minutes=options.minutes).state_dict(), options.output, {})


if __name__ == "__main__":
    main()
