"""Encodes cached pictures: what the UNet's trainer reads."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import interpolate

from training.exit_codes import exit_code
from training.tensor_files import save_whole

from .autoencoder import TinyAutoencoder
from .cache import Rows, gain_in_stops, join, shard_files
from .loop import quick_type

log = logging.getLogger(__name__)


@torch.no_grad()
def encode(autoencoder: TinyAutoencoder, pictures: Tensor) -> Tensor:
    """Scaled latents `[N,4,h,w]` float16, computed in the autoencoder's own type."""
    own = next(autoencoder.parameters()).dtype
    pictures = pictures.to(own).contiguous(memory_format=torch.channels_last)
    return autoencoder.encoder(pictures).to(torch.float16).contiguous()


def area(pictures: Tensor, side: int) -> Tensor:
    """`[N,3,S,S]` of any type, area-averaged to float `[N,3,side,side]`."""
    return interpolate(pictures.float(), size=(side, side), mode="area")


def latent_rows(pictures: Rows, autoencoder: TinyAutoencoder, side: int) -> Rows:
    """Latents `[N,4,side/8,side/8]`, and SDR pictures (uint8) and gains (stops) a quarter of `side`,
    `[N,3,side/4,side/4]`, in which the loss judges what a latent looks like.
    """
    sdr, gain_map = pictures["sdr"], pictures["gain_map"]
    return {
        "sdr": encode(autoencoder, area(sdr, side) / 255),
        "gain_map": encode(autoencoder, area(gain_map, side) / 255),
        "sdr_small": area(sdr, side // 4).round().to(torch.uint8),
        "gain_small": gain_in_stops(area(gain_map, side // 4)).half(),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--pictures", type=Path, required=True, help="folder written by training.builtin.cache"
    )
    parser.add_argument("--teacher", type=Path, required=True, help="folder of TAESD's two safetensors files")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--side", type=int, default=64, help="pixels per side of a sample")
    parser.add_argument("--shards", type=int, help="as many as this; all by default")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    shards = shard_files(options.pictures)[: options.shards]
    # bfloat16 is twice as fast where the CPU has it, with an error below 1 %.
    autoencoder = TinyAutoencoder().load_teacher(options.teacher).eval().to(quick_type())
    options.output.mkdir(parents=True, exist_ok=True)
    for source in shards:
        path = options.output / f"{options.side}_{source.name}"
        if path.exists():
            continue
        pictures = load_file(source)
        count = len(pictures["sdr"])
        chunks = [{k: v[start : start + 32] for k, v in pictures.items()} for start in range(0, count, 32)]
        save_whole(join([latent_rows(part, autoencoder, options.side) for part in chunks]), path, {})
        log.info("wrote %s", path.name)


if __name__ == "__main__":
    raise SystemExit(exit_code(main))
