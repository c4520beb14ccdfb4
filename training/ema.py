"""Exponential moving average of the trained weights, and only of those."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class ExponentialMovingAverage:
    """shadow <- d * shadow + (1 - d) * weight with d = min(decay, (1 + n) / (10 + n)) at update n = 0, 1, ...

    Args:
        parameters: the trained parameters by name; the average starts as their float32 copy.
        decay: in [0, 1).
        device: where the average lives; None = beside the weights.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], decay: float, device: torch.device | None = None
    ) -> None:
        self.parameters = dict(parameters)
        self.decay = decay
        self.updates = 0
        self.shadow = {
            name: weight.detach().to(device or weight.device, torch.float32, copy=True)
            for name, weight in self.parameters.items()
        }

    @torch.no_grad()
    def update(self) -> None:
        """Move every average towards its weight."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        for name, average in self.shadow.items():
            average.lerp_(self.parameters[name].detach().to(average.device, torch.float32), 1 - decay)

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """The averages act as the weights inside the block; the weights come back bit-exact."""
        weights = {name: weight.detach().clone() for name, weight in self.parameters.items()}
        self._assign(self.shadow)
        try:
            yield
        finally:
            self._assign(weights)

    @torch.no_grad()
    def load(self, shadow: Mapping[str, Tensor], updates: int) -> None:
        """Continue from a saved average."""
        for name, average in self.shadow.items():
            average.copy_(shadow[name])
        self.updates = updates

    @torch.no_grad()
    def _assign(self, values: Mapping[str, Tensor]) -> None:
        for name, weight in self.parameters.items():
            weight.copy_(values[name])
