"""Latent cache: encodes endless random samples into safetensors shards that the UNet trainer reads as they
appear.

Every sample is a function of (seed, shard, index), so a cache can be rebuilt, continued, or rendered again in
pixels.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from .autoencoder import TinyAutoencoder
from .samples import Scenes, make_sample

log = logging.getLogger(__name__)


def sample_rng(seed: int, shard: int, index: int) -> np.random.Generator:
    return np.random.default_rng([seed, shard, index])


def to_bchw(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1).float()


def render_batch(scenes: Scenes, seed: int, shard: int, indices: range, size: int) -> tuple[Tensor, Tensor]:
    """SDR pictures and coded gain maps of a shard, both `[N,3,size,size]` in [0,1]."""
    samples = [make_sample(sample_rng(seed, shard, index), scenes, size) for index in indices]
    return torch.stack([to_bchw(s.sdr) / 255 for s in samples]), torch.stack(
        [to_bchw(s.coded) for s in samples]
    )


@torch.no_grad()
def encode(autoencoder: TinyAutoencoder, pictures: Tensor) -> Tensor:
    """Scaled latents `[N,4,h,w]` float16. bfloat16 is twice as fast on recent CPUs, error below 1 %."""
    pictures = pictures.to(memory_format=torch.channels_last, dtype=torch.bfloat16)
    return autoencoder.encoder(pictures).to(torch.float16).contiguous()


def write_shard(
    path: Path, scenes: Scenes, autoencoder: TinyAutoencoder, seed: int, shard: int, count: int, size: int
):
    parts: dict[str, list[Tensor]] = {"sdr": [], "gain_map": []}
    for start in range(0, count, 16):
        sdr, coded = render_batch(scenes, seed, shard, range(start, min(start + 16, count)), size)
        parts["sdr"].append(encode(autoencoder, sdr))
        parts["gain_map"].append(encode(autoencoder, coded))
    partial = path.with_suffix(".partial")
    save_file({name: torch.cat(tensors) for name, tensors in parts.items()}, partial)
    partial.replace(path)


def read_shards(folder: Path, *, known: set[str] = frozenset()) -> dict[str, dict[str, Tensor]]:
    """Complete shards in `folder` that are not in `known`, by file name."""
    return {p.name: load_file(p) for p in sorted(folder.glob("*.safetensors")) if p.name not in known}


def find(folder: Path | None, *patterns: str) -> list[Path]:
    return sorted(path for pattern in patterns for path in folder.glob(pattern)) if folder else []


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--panoramas", type=Path, required=True, help="folder of equirectangular .hdr files")
    parser.add_argument("--photos", type=Path, help="folder of ordinary photos (.jpg)")
    parser.add_argument("--teacher", type=Path, required=True, help="folder of TAESD's two safetensors files")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--size", type=int, default=192, help="pixels per side of a sample")
    parser.add_argument("--shards", type=int, default=32)
    parser.add_argument("--shard-size", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    scenes = Scenes(find(options.panoramas, "*.hdr"), find(options.photos, "*.jpg"))
    autoencoder = TinyAutoencoder().load_teacher(options.teacher).eval()
    autoencoder = autoencoder.to(memory_format=torch.channels_last, dtype=torch.bfloat16)
    options.output.mkdir(parents=True, exist_ok=True)
    for shard in range(options.shards):
        path = options.output / f"{options.size}_{options.seed}_{shard:04d}.safetensors"
        if not path.exists():
            write_shard(path, scenes, autoencoder, options.seed, shard, options.shard_size, options.size)
            log.info("wrote %s", path.name)


if __name__ == "__main__":
    main()
