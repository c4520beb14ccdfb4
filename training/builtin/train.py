"""Trains the built-in GM UNet on a latent cache that may still be growing, for a set time; resumable."""

from __future__ import annotations

import argparse
import copy
import logging
import math
import time
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from training.export import save_whole

from .cache import read_shards
from .objective import (
    HIGHLIGHT_WEIGHT,
    PerceptualScale,
    fit_small_decoder,
    highlight_error,
    latent_error,
    picture_error,
)
from .unet import make_unet, noisy_latents, predict_x0, sample_timesteps

log = logging.getLogger(__name__)
CONDITION_NOISE = 0.05
"""Standard deviation of noise on the SDR latents: keeps the UNet from recognising training pictures."""


@dataclass(frozen=True)
class Batch:
    """Latents `[B,4,h,w]`, and picture ([0,1]) and gain (stops) `[B,3,2h,2w]`, all float32."""

    sdr: Tensor
    gain_map: Tensor
    sdr_small: Tensor
    gain_small: Tensor

    def mirrored(self) -> Batch:
        return Batch(*(getattr(self, field.name).flip(-1) for field in fields(self)))


class LatentPool:
    """All cached samples in memory; draws batches of one latent size, half of them mirrored."""

    def __init__(self, folder: Path, generator: torch.Generator) -> None:
        self.folder, self.generator = folder, generator
        self.shards: dict[str, dict[str, Tensor]] = {}

    def refresh(self) -> None:
        self.shards |= read_shards(self.folder, known=set(self.shards))
        if not self.shards:
            raise FileNotFoundError(
                f"{self.folder}: no *.safetensors shard yet; run training.builtin.latents first"
            )

    def batch(self, size: int) -> Batch:
        """`size` samples, drawn from a few shards of one latent size."""
        names = list(self.shards)
        first = self.shards[names[int(torch.randint(len(names), (), generator=self.generator))]]
        alike = [s for s in self.shards.values() if s["sdr"].shape[1:] == first["sdr"].shape[1:]]
        drawn = [self._draw(alike, len(part)) for part in torch.arange(size).chunk(4)]
        rows = {name: torch.cat([part[name] for part in drawn]).float() for name in first}
        rows["sdr_small"] /= 255
        noise = CONDITION_NOISE * torch.randn(rows["sdr"].shape, generator=self.generator)
        batch = Batch(rows["sdr"] + noise, rows["gain_map"], rows["sdr_small"], rows["gain_small"])
        return batch.mirrored() if torch.rand((), generator=self.generator) < 0.5 else batch

    def _draw(self, shards: list[dict[str, Tensor]], count: int) -> dict[str, Tensor]:
        shard = shards[int(torch.randint(len(shards), (), generator=self.generator))]
        chosen = torch.randint(len(shard["sdr"]), (count,), generator=self.generator)
        return {name: rows[chosen] for name, rows in shard.items()}


class Objective:
    """Loss of a UNet on a batch; see `objective.py`."""

    def __init__(self, pool: LatentPool, options: argparse.Namespace) -> None:
        self.generator, self.options = pool.generator, options
        sizes = [shard["sdr"].shape[-1] for shard in pool.shards.values()]
        chosen = [s for s in pool.shards.values() if s["sdr"].shape[-1] == min(sizes)][:40]
        self.decoder = fit_small_decoder(
            torch.cat([s["gain_map"] for s in chosen]),
            torch.cat([s["gain_small"] for s in chosen]),
            steps=options.decoder_steps,
            generator=self.generator,
        )
        self.scale = PerceptualScale()

    def __call__(self, unet: torch.nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss, and the part of it that is the picture's error in dB."""
        t = sample_timesteps(len(batch.sdr), self.generator, first_step_share=self.options.first_step_share)
        noise = torch.randn(batch.sdr.shape, generator=self.generator)
        with torch.autocast("cpu", torch.bfloat16):
            predicted = predict_x0(unet, noisy_latents(batch.gain_map, t, noise), t, batch.sdr)
        seen = self.decoder(predicted.float())
        decibels = picture_error(self.scale, batch.sdr_small, seen, batch.gain_small).mean()
        highlights = highlight_error(batch.sdr_small, seen, batch.gain_small).mean()
        picture = decibels + HIGHLIGHT_WEIGHT * highlights
        loss = latent_error(predicted.float(), batch.gain_map) + self.options.picture_weight * picture
        return loss, decibels.detach()


def learning_rate(progress: float, step: int, peak: float, *, warmup: int = 50) -> float:
    """Warm-up over some steps, then a cosine to zero over the set time."""
    return peak * min(step / warmup, 1) * 0.5 * (1 + math.cos(math.pi * progress))


@torch.no_grad()
def update_average(
    average: torch.nn.Module, model: torch.nn.Module, step: int, *, longest: float = 0.998
) -> None:
    decay = min(longest, (1 + step) / (10 + step))
    for kept, new in zip(average.parameters(), model.parameters(), strict=True):
        kept.lerp_(new, 1 - decay)


def train(options: argparse.Namespace) -> None:
    generator = torch.Generator().manual_seed(options.seed)
    pool, unet = LatentPool(options.cache, generator), make_unet()
    if options.resume:
        unet.load_state_dict(load_file(options.resume))
    average = copy.deepcopy(unet)
    optimiser = torch.optim.AdamW(unet.parameters(), lr=options.lr, betas=(0.9, 0.99), weight_decay=0.05)
    pool.refresh()
    objective = Objective(pool, options)
    start, running, step = time.monotonic(), torch.zeros(2), 0
    while (progress := (time.monotonic() - start) / (60 * options.minutes)) < 1:
        if step % 100 == 0:
            pool.refresh()
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(progress, step + 1, options.lr)
        loss, decibels = objective(unet, pool.batch(options.batch))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        step += 1
        update_average(average, unet, step)
        running += torch.stack([loss.detach(), decibels])
        if step % 100 == 0:
            log.info(
                "step %d  %.0f %%  loss %.4f  picture %.3f dB  shards %d",
                step,
                100 * progress,
                *(running / 100).tolist(),
                len(pool.shards),
            )
            running.zero_()
        if step % 500 == 0:
            save(average, options.output)
    save(average, options.output)


def save(average: torch.nn.Module, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_whole({key: value.contiguous() for key, value in average.state_dict().items()}, path, {})


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument(
        "--output", type=Path, required=True, help="averaged weights, diffusers names (.safetensors)"
    )
    parser.add_argument("--resume", type=Path, help="weights to go on from")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=4e-4)
    parser.add_argument("--first-step-share", type=float, default=1.0)
    parser.add_argument("--picture-weight", type=float, default=0.05)
    parser.add_argument("--decoder-steps", type=int, default=2000, help="steps to fit the loss's decoder")
    parser.add_argument("--seed", type=int, default=0)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    train(parser.parse_args(arguments))


if __name__ == "__main__":
    main()
