"""Cached latents in memory, drawn as batches for the UNet's trainer."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from training.errors import DatasetError

from .cache import Rows, read_shards

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
        self.shards: dict[str, Rows] = {}

    def refresh(self) -> None:
        """Reads the shards that were added since. Raises: DatasetError when there is none at all."""
        self.shards |= read_shards(self.folder, known=set(self.shards))
        if not self.shards:
            raise DatasetError(
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

    def _draw(self, shards: list[Rows], count: int) -> Rows:
        shard = shards[int(torch.randint(len(shards), (), generator=self.generator))]
        chosen = torch.randint(len(shard["sdr"]), (count,), generator=self.generator)
        return {name: rows[chosen] for name, rows in shard.items()}
