"""Sample cache: endless random samples as safetensors shards that all trainers read.

Every sample is a function of (seed, shard, index), so a cache can be rebuilt, continued and spread over
machines.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Set
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from gm_core.tone.statistics import picture_statistics
from training.errors import DatasetError
from training.exit_codes import exit_code
from training.tensor_files import save_whole

from .panoramas import find_panoramas
from .samples import KEPT_SIDE, LOG2_MAX, LOG2_MIN, MIXES, Sample, Scenes, make_sample, shrink

log = logging.getLogger(__name__)
Rows = dict[str, Tensor]
"""A shard: tensors of equal length, one row a sample."""
PART = 16
"""Samples rendered before they are made into rows."""


def sample_rng(seed: int, shard: int, index: int) -> np.random.Generator:
    return np.random.default_rng([seed, shard, index])


def to_bchw(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1).float()


def render_batch(scenes: Scenes, seed: int, shard: int, indices: range, mix: str = "all") -> list[Sample]:
    """Samples of a shard, of a mix in `samples.MIXES`."""
    return [make_sample(sample_rng(seed, shard, index), scenes, mix) for index in indices]


def picture_rows(samples: list[Sample]) -> Rows:
    """`sdr` and coded `gain_map` uint8 `[N,3,KEPT_SIDE,KEPT_SIDE]`, `statistics` of the pictures at full
    size.
    """
    kept = [(shrink(sample.sdr, KEPT_SIDE), shrink(sample.coded, KEPT_SIDE)) for sample in samples]
    return {
        "sdr": torch.stack([to_bchw(sdr) for sdr, _ in kept]).to(torch.uint8),
        "gain_map": torch.stack([to_bchw(coded) * 255 for _, coded in kept]).round().to(torch.uint8),
        "statistics": picture_statistics(torch.stack([to_bchw(sample.sdr) / 255 for sample in samples])),
    }


def gain_in_stops(gain_map: Tensor) -> Tensor:
    """Stops that uint8 codes of a shard's gain maps stand for."""
    return gain_map.float() * ((LOG2_MAX - LOG2_MIN) / 255) + LOG2_MIN


def join(parts: list[Rows]) -> Rows:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def shard_files(folder: Path) -> list[Path]:
    """The shards in `folder`, by name.

    Raises:
        DatasetError: there is none.
    """
    found = sorted(folder.glob("*.safetensors"))
    if not found:
        raise DatasetError(f"{folder}: no *.safetensors shard; run training.builtin.cache first")
    return found


def read_shards(folder: Path, *, known: Set[str] = frozenset()) -> dict[str, Rows]:
    """Complete shards in `folder` that are not in `known`, by file name."""
    return {p.name: load_file(p) for p in sorted(folder.glob("*.safetensors")) if p.name not in known}


def add_scene_arguments(parser: argparse.ArgumentParser) -> None:
    """The folders that `load_scenes` reads."""
    parser.add_argument("--panoramas", type=Path, required=True, help="folder of equirectangular .hdr files")
    parser.add_argument("--photos", type=Path, help="folder of ordinary photos (.jpg)")


def load_scenes(options: argparse.Namespace, **shares: float) -> Scenes:
    photos = sorted(options.photos.glob("*.jpg")) if options.photos else []
    return Scenes(find_panoramas(options.panoramas), photos, **shares)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_scene_arguments(parser)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--shards", type=int, default=100)
    parser.add_argument("--shard-size", type=int, default=512)
    parser.add_argument("--mix", choices=MIXES, default="all", help="'phones': those that keep hues")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    scenes, size = load_scenes(options), options.shard_size
    options.output.mkdir(parents=True, exist_ok=True)
    for shard in range(options.shards):
        path = options.output / f"{options.seed}_{shard:04d}.safetensors"
        if path.exists():
            continue
        ranges = [range(start, min(start + PART, size)) for start in range(0, size, PART)]
        parts = [picture_rows(render_batch(scenes, options.seed, shard, p, options.mix)) for p in ranges]
        save_whole(join(parts), path, {})
        log.info("wrote %s", path.name)


if __name__ == "__main__":
    raise SystemExit(exit_code(main))
