"""Random numbers as a pure function of (seed, stream, sample number).

No generator state survives a step, so a resumed run, a run on another number of processes and an
uninterrupted run draw the same numbers for the same sample.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def generator(seed: int, stream: str, number: int) -> torch.Generator:
    """CPU generator for one use (`stream`) of one sample (`number`)."""
    digest = hashlib.blake2b(f"{seed}/{stream}/{number}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def normal(seed: int, stream: str, numbers: Sequence[int], shape: Sequence[int]) -> Tensor:
    """[len(numbers), *shape] standard normal float32 on the CPU, one generator per sample."""
    return torch.stack([torch.randn(*shape, generator=generator(seed, stream, n)) for n in numbers])


def uniform(seed: int, stream: str, numbers: Sequence[int]) -> Tensor:
    """[len(numbers)] uniform in [0, 1)."""
    return torch.stack([torch.rand((), generator=generator(seed, stream, n)) for n in numbers])


def integers(seed: int, stream: str, numbers: Sequence[int], high: int) -> Tensor:
    """[len(numbers)] int64 uniform in [0, high)."""
    return torch.stack([torch.randint(high, (), generator=generator(seed, stream, n)) for n in numbers])
