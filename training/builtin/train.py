"""Trains the built-in GM UNet on a latent cache that may still be growing, for a set time; resumable."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch
from safetensors.torch import load_file

from training.ema import ExponentialMovingAverage
from training.exit_codes import exit_code
from training.tensor_files import save_whole

from .loop import learning_rate, timed_steps
from .objective import Objective
from .pool import LatentPool
from .unet import make_unet

log = logging.getLogger(__name__)
AVERAGE_DECAY = 0.998
LOG_EVERY, SAVE_EVERY = 100, 500
"""Steps between two lines of the log, after which new shards are read too, and between two saved files."""


def train(options: argparse.Namespace) -> None:
    generator = torch.Generator().manual_seed(options.seed)
    pool, unet = LatentPool(options.cache, generator), make_unet()
    if options.resume:
        unet.load_state_dict(load_file(options.resume))
    average = ExponentialMovingAverage(dict(unet.named_parameters()), AVERAGE_DECAY)
    optimiser = torch.optim.AdamW(unet.parameters(), lr=options.lr, betas=(0.9, 0.99), weight_decay=0.05)
    pool.refresh()
    objective = Objective(
        pool,
        first_step_share=options.first_step_share,
        picture_weight=options.picture_weight,
        decoder_steps=options.decoder_steps,
    )
    running = torch.zeros(2)
    for step, progress in timed_steps(options.minutes):
        optimiser.param_groups[0]["lr"] = learning_rate(progress, step, options.lr)
        loss, decibels = objective(unet, pool.batch(options.batch))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        average.update()
        running += torch.stack([loss.detach(), decibels])
        if step % LOG_EVERY == LOG_EVERY - 1:
            means = (running / LOG_EVERY).tolist()
            log.info("step %d  %.0f %%  loss %.4f  picture %.3f dB", step + 1, 100 * progress, *means)
            running.zero_()
            pool.refresh()
        if step % SAVE_EVERY == SAVE_EVERY - 1:
            save(average, options.output)
    save(average, options.output)


def save(average: ExponentialMovingAverage, path: Path) -> None:
    save_whole({key: value.contiguous() for key, value in average.shadow.items()}, path, {})


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
    raise SystemExit(exit_code(main))
