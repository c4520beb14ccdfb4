"""Trains the built-in GM UNet on a latent cache that may still be growing, for a set time; resumable."""

from __future__ import annotations

import argparse
import copy
import logging
import math
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from .cache import read_shards
from .unet import gain_map_loss, make_unet

log = logging.getLogger(__name__)
CONDITION_NOISE = 0.05
"""Standard deviation of noise on the SDR latents: keeps the UNet from recognising training pictures."""


class LatentPool:
    """All cached pairs in memory; draws batches of one latent size, half of them mirrored."""

    def __init__(self, folder: Path, generator: torch.Generator) -> None:
        self.folder, self.generator = folder, generator
        self.shards: dict[str, dict[str, Tensor]] = {}

    def refresh(self) -> None:
        self.shards |= read_shards(self.folder, known=set(self.shards))
        if not self.shards:
            raise FileNotFoundError(
                f"{self.folder}: no *.safetensors shard yet; run training.builtin.cache first"
            )

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        """SDR and gain-map latents `[size,4,h,w]` float32."""
        names = list(self.shards)
        shard = self.shards[names[int(torch.randint(len(names), (), generator=self.generator))]]
        chosen = torch.randperm(len(shard["sdr"]), generator=self.generator)[:size]
        sdr, gain_map = shard["sdr"][chosen].float(), shard["gain_map"][chosen].float()
        if torch.rand((), generator=self.generator) < 0.5:
            sdr, gain_map = sdr.flip(-1), gain_map.flip(-1)
        return sdr + CONDITION_NOISE * torch.randn(sdr.shape, generator=self.generator), gain_map


def learning_rate(progress: float, step: int, peak: float) -> float:
    """Warm-up over 50 steps, then a cosine to zero over the set time."""
    return peak * min(step / 50, 1) * 0.5 * (1 + math.cos(math.pi * progress))


@torch.no_grad()
def update_average(average: torch.nn.Module, model: torch.nn.Module, step: int) -> None:
    decay = min(0.998, (1 + step) / (10 + step))
    for kept, new in zip(average.parameters(), model.parameters(), strict=True):
        kept.lerp_(new, 1 - decay)


def train(options: argparse.Namespace) -> None:
    generator = torch.Generator().manual_seed(options.seed)
    pool, unet = LatentPool(options.cache, generator), make_unet()
    if options.resume:
        unet.load_state_dict(load_file(options.resume))
    average = copy.deepcopy(unet)
    optimiser = torch.optim.AdamW(unet.parameters(), lr=options.lr, betas=(0.9, 0.99), weight_decay=0.05)
    start, running, step = time.monotonic(), 0.0, 0
    while (progress := (time.monotonic() - start) / (60 * options.minutes)) < 1:
        if step % 100 == 0:
            pool.refresh()
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(progress, step + 1, options.lr)
        sdr, gain_map = pool.batch(options.batch)
        with torch.autocast("cpu", torch.bfloat16):
            loss = gain_map_loss(unet, sdr, gain_map, generator, first_step_share=options.first_step_share)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        step += 1
        update_average(average, unet, step)
        running += float(loss.detach())
        if step % 100 == 0:
            log.info(
                "step %d  %.0f %%  loss %.5f  shards %d",
                step,
                100 * progress,
                running / 100,
                len(pool.shards),
            )
            running = 0.0
        if step % 500 == 0:
            save(average, options.output)
    save(average, options.output)


def save(average: torch.nn.Module, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file({key: value.contiguous() for key, value in average.state_dict().items()}, partial)
    partial.replace(path)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument(
        "--output", type=Path, required=True, help="averaged weights, diffusers names (.safetensors)"
    )
    parser.add_argument("--resume", type=Path, help="weights to go on from")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=4e-4)
    parser.add_argument("--first-step-share", type=float, default=0.85)
    parser.add_argument("--seed", type=int, default=0)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    train(parser.parse_args(arguments))


if __name__ == "__main__":
    main()
