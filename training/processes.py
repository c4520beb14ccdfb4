"""This process among those that torchrun or `accelerate launch` started, where no gradients are shared."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

import torch

ItemT = TypeVar("ItemT")


def is_first() -> bool:
    """Whether this process does what only one may do."""
    return _number("RANK", 0) == 0


def is_alone() -> bool:
    """Whether this is the only process."""
    return _number("WORLD_SIZE", 1) == 1


def own_share(items: Sequence[ItemT]) -> Sequence[ItemT]:
    """Every n-th item, so that n processes do all of them once."""
    return items[_number("RANK", 0) :: _number("WORLD_SIZE", 1)]


def own_device() -> torch.device:
    """This process's GPU, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", _number("LOCAL_RANK", 0) % torch.cuda.device_count())


def _number(variable: str, default: int) -> int:
    return int(os.environ.get(variable, default))
