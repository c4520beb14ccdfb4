"""The SDR branch's x0 at every denoiser call, recorded in one pass and replayed in the next."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .errors import GainMapError

_SAME_SIGMA = 1e-4


@dataclass
class Trajectory:
    """Clean latents [B,4,h,w] in model space, one per denoiser call, kept in RAM as float32."""

    sigmas: list[float] = field(default_factory=list)
    latents: list[Tensor] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.sigmas)

    def record(self, sigma: float | Tensor, x0: Tensor) -> None:
        """Keep a copy of x0 as the denoiser gave it at this noise level."""
        self.sigmas.append(_level(sigma))
        self.latents.append(x0.detach().to("cpu", torch.float32, copy=True))

    def at(self, call: int, sigma: float | Tensor) -> Tensor:
        """x0 of the `call`-th denoiser call, or of its noise level where the calls do not line up.

        The index comes first: solvers such as Heun call one level twice, with different latents. Another
        sampler's or an adaptive sampler's levels are interpolated linearly in log sigma.

        Returns:
            [B,4,h,w] float32 on the CPU; not to be written to.

        Raises:
            GainMapError: nothing was recorded.
        """
        if not self.sigmas:
            raise GainMapError("the trajectory is empty; the SDR pass has to run before its x0 is replayed")
        level = _level(sigma)
        if call < len(self) and math.isclose(self.sigmas[call], level, rel_tol=_SAME_SIGMA):
            return self.latents[call]
        return self._interpolate(level)

    def reader(self) -> TrajectoryReader:
        """Replays from the first call on."""
        return TrajectoryReader(self)

    def _interpolate(self, level: float) -> Tensor:
        level = min(max(level, min(self.sigmas)), max(self.sigmas))
        # Of several calls at one level the last is the most refined.
        low, below = max((sigma, call) for call, sigma in enumerate(self.sigmas) if sigma <= level)
        high, above = min((sigma, -call) for call, sigma in enumerate(self.sigmas) if sigma >= level)
        if low == high or low <= 0:
            return self.latents[below]
        weight = math.log(level / low) / math.log(high / low)
        return torch.lerp(self.latents[below], self.latents[-above], weight)


@dataclass
class TrajectoryReader:
    """One replay of a trajectory."""

    trajectory: Trajectory
    call: int = 0

    def next(self, sigma: float | Tensor) -> Tensor:
        """x0 for the next denoiser call, [B,4,h,w] float32 on the CPU."""
        x0 = self.trajectory.at(self.call, sigma)
        self.call += 1
        return x0


@dataclass(frozen=True)
class ConstantCondition:
    """The same clean SDR latent [B,4,h,w] at every call: SDR to HDR, or a finished picture."""

    x0: Tensor

    def next(self, sigma: float | Tensor) -> Tensor:
        """The latent, whatever the noise level."""
        return self.x0


def _level(sigma: float | Tensor) -> float:
    return float(sigma.flatten()[0]) if isinstance(sigma, Tensor) else float(sigma)
