"""Lock-step reference samplers on callables, in the k-diffusion view x = x0 + sigma * noise.

A denoiser is called as `model(x, sigma)` with x [B,4,h,w] and sigma [B] and returns x0 [B,4,h,w]; that of
the gain map as `model(x, sigma, condition)`. Guidance is the business of the callable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from types import MappingProxyType

import torch
from torch import Tensor

from .conditioning import gm_unet_input
from .errors import GainMapError
from .schedule import timestep_of

Model = Callable[[Tensor, Tensor], Tensor]
GainMapModel = Callable[[Tensor, Tensor, Tensor], Tensor]
Step = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def euler() -> Step:
    """Euler's method; in this view it is also DDIM with eta = 0."""

    def step(x: Tensor, x0: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
        return x + (x - x0) / sigma * (sigma_next - sigma)

    return step


def dpmpp_2m() -> Step:
    """DPM-Solver++(2M) of Lu et al. 2022; each call gives a solver with its own history."""
    history: list[tuple[Tensor, Tensor]] = []

    def step(x: Tensor, x0: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
        if sigma_next == 0:
            return x0
        h = (sigma / sigma_next).log()
        blend = x0
        if history:
            x0_last, h_last = history.pop()
            blend = x0 + (x0 - x0_last) * (h / (2 * h_last))
        history.append((x0, h))
        return sigma_next / sigma * x - torch.expm1(-h) * blend

    return step


SOLVERS: Mapping[str, Callable[[], Step]] = MappingProxyType(
    {"euler": euler, "ddim": euler, "dpmpp_2m": dpmpp_2m}
)


def sample_dual(
    sdr_model: Model, gm_model: GainMapModel, noise: Tensor, sigmas: Tensor, *, sampler: str = "euler"
) -> tuple[Tensor, Tensor]:
    """Text to SDR and gain map, the paper's dual loop.

    Both branches start from the same noise. The condition of the gain map is the SDR branch's x0 of the same
    step, after guidance and before stepping. The branches keep separate solver histories.

    Args:
        sdr_model: guided SDR denoiser.
        gm_model: gain-map denoiser.
        noise: [B,4,h,w] of unit variance.
        sigmas: [steps + 1], falling.
        sampler: "euler", "ddim" or "dpmpp_2m".

    Returns:
        SDR and gain-map latents [B,4,h,w] in model space.

    Raises:
        GainMapError: unknown sampler, or sigmas that do not fall.
    """
    sdr_step, gm_step = _solver(sampler), _solver(sampler)
    sdr = gm = _start(noise, sigmas)
    ones = noise.new_ones(noise.shape[0])
    for sigma, sigma_next in pairwise(sigmas):
        sdr_x0 = sdr_model(sdr, sigma * ones)
        gm_x0 = gm_model(gm, sigma * ones, sdr_x0)
        sdr = sdr_step(sdr, sdr_x0, sigma, sigma_next)
        gm = gm_step(gm, gm_x0, sigma, sigma_next)
    return sdr, gm


def sample_gain_map(
    gm_model: GainMapModel, condition: Tensor, noise: Tensor, sigmas: Tensor, *, sampler: str = "euler"
) -> Tensor:
    """Gain-map latent [B,4,h,w] of a finished SDR picture; other arguments and errors as in `sample_dual`.

    Args:
        condition: [B,4,h,w] clean SDR latent in model space.
    """
    step = _solver(sampler)
    gm = _start(noise, sigmas)
    ones = noise.new_ones(noise.shape[0])
    for sigma, sigma_next in pairwise(sigmas):
        gm = step(gm, gm_model(gm, sigma * ones, condition), sigma, sigma_next)
    return gm


class Denoiser:
    """Wraps a network `(x_t, timestep [B]) -> prediction` as a denoiser.

    With a condition the network sees the 8 channels of `gm_unet_input`, else x_t alone.

    Args:
        network: predicts in the variance-preserving view, x_t = sqrt(abar) x0 + sqrt(1 - abar) noise.
        prediction: "eps", "v" or "x0".
        alphas: [T] cumulative alpha products of the network's schedule; None is that of SD 1.5.

    Raises:
        GainMapError: unknown prediction.
    """

    def __init__(self, network: Model, prediction: str = "eps", alphas: Tensor | None = None) -> None:
        if prediction not in ("eps", "v", "x0"):
            raise GainMapError(f"prediction is {prediction!r}; expected eps, v or x0")
        self.network, self.prediction, self.alphas = network, prediction, alphas

    def __call__(self, x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        level = sigma.view(-1, 1, 1, 1)
        scale = (level.square() + 1).rsqrt()
        x_t = x * scale
        seen = x_t if condition is None else gm_unet_input(condition=condition, noisy_gm=x_t)
        out = self.network(seen, timestep_of(sigma, self.alphas))
        if self.prediction == "eps":
            return x - level * out
        return out if self.prediction == "x0" else (x_t - level * out) * scale


def _solver(name: str) -> Step:
    if name not in SOLVERS:
        raise GainMapError(f"sampler is {name!r}; expected one of {', '.join(SOLVERS)}")
    return SOLVERS[name]()


def _start(noise: Tensor, sigmas: Tensor) -> Tensor:
    if sigmas.ndim != 1 or not (sigmas.diff() < 0).all():
        raise GainMapError(f"sigmas are {sigmas.tolist()}; expected falling noise levels")
    # Unit variance at the first timestep, as the schedule's own x_t has there.
    return noise * (1 + sigmas[0].square()).sqrt()
