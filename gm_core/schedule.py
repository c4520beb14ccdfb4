"""The noise schedule of Stable Diffusion 1.x and what follows from it.

Latents are in model space (scaled by 0.18215). `t` is an integer timestep per sample, [B] in 0..999;
`abar` is the cumulative alpha product. Functions with an `alphas` argument use the SD 1.5 schedule
unless given another table [T].
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from .errors import GainMapError

Spacing = Literal["leading", "linspace", "trailing"]


def alphas_cumprod(steps: int = 1000, beta: tuple[float, float] = (0.00085, 0.012)) -> Tensor:
    """Cumulative alpha products [steps] of the scaled-linear schedule: betas are linear in their roots."""
    betas = torch.linspace(beta[0] ** 0.5, beta[1] ** 0.5, steps, dtype=torch.float64).square()
    return (1 - betas).cumprod(0).float()


def sigmas(alphas: Tensor | None = None) -> Tensor:
    """Noise level [T] of each timestep in the variance-exploding view, x = x0 + sigma * noise."""
    abar = alphas_cumprod() if alphas is None else alphas
    return ((1 - abar) / abar).sqrt()


def timestep_of(sigma: Tensor, alphas: Tensor | None = None) -> Tensor:
    """Timestep [B] whose noise level is nearest in log sigma to each of [B], as ComfyUI rounds it."""
    table = sigmas(alphas).to(sigma).log()
    return (sigma.log()[:, None] - table).abs().argmin(dim=1)


def sigma_at(t: Tensor, alphas: Tensor | None = None) -> Tensor:
    """sigma at timesteps that may lie between two of the schedule; interpolated in the logarithm."""
    table = sigmas(alphas).log()
    return torch.lerp(table[t.floor().long()], table[t.ceil().long()], t.frac()).exp()


def sampling_timesteps(steps: int, spacing: Spacing = "leading") -> Tensor:
    """Integer timesteps [steps], falling, as diffusers spaces them over 1000 (leading with offset 1).

    Raises:
        GainMapError: `steps` is not in 1..999, or the spacing is unknown.
    """
    if not 1 <= steps <= 999:
        raise GainMapError(f"steps is {steps}; expected 1 to 999")
    if spacing == "leading":
        return (torch.arange(steps) * (1000 // steps) + 1).flip(0)
    if spacing == "linspace":
        # As numpy counts; torch.linspace makes a round 499.5 of its 499.49999, and so another timestep.
        return (torch.arange(1, steps + 1, dtype=torch.float64) * (999 / steps)).round().long().flip(0)
    if spacing == "trailing":
        step = 1000 - (1000 - 1000 / steps)  # numpy's range takes the difference of its first two
        return (1000 - torch.arange(steps, dtype=torch.float64) * step).round().long() - 1
    raise GainMapError(f"spacing is {spacing!r}; expected leading, linspace or trailing")


def sampling_sigmas(steps: int, spacing: Spacing = "leading", alphas: Tensor | None = None) -> Tensor:
    """Noise levels [steps + 1] of `sampling_timesteps`, ending in 0."""
    levels = sigmas(alphas)[sampling_timesteps(steps, spacing)]
    return torch.cat([levels, levels.new_zeros(1)])


def add_noise(x0: Tensor, noise: Tensor, t: Tensor, alphas: Tensor | None = None) -> Tensor:
    """x_t = sqrt(abar) x0 + sqrt(1 - abar) noise; [B,4,h,w]."""
    signal, spread = _roots(t, x0, alphas)
    return signal * x0 + spread * noise


def x0_from_eps(x_t: Tensor, eps: Tensor, t: Tensor, alphas: Tensor | None = None) -> Tensor:
    """Clean latent implied by a noise prediction; undefined where abar is 0."""
    signal, spread = _roots(t, x_t, alphas)
    return (x_t - spread * eps) / signal


def x0_from_v(x_t: Tensor, v: Tensor, t: Tensor, alphas: Tensor | None = None) -> Tensor:
    """Clean latent implied by a v prediction (Salimans and Ho 2022)."""
    signal, spread = _roots(t, x_t, alphas)
    return signal * x_t - spread * v


def v_target(x0: Tensor, noise: Tensor, t: Tensor, alphas: Tensor | None = None) -> Tensor:
    """What a v-predicting network should say: sqrt(abar) noise - sqrt(1 - abar) x0."""
    signal, spread = _roots(t, x0, alphas)
    return signal * noise - spread * x0


def snr(t: Tensor, alphas: Tensor | None = None) -> Tensor:
    """Signal-to-noise ratio [B], abar / (1 - abar); 0 at a zero-terminal-SNR end."""
    abar = _abar(t, alphas)
    return abar / (1 - abar)


def min_snr_weight(
    t: Tensor, *, prediction: str = "eps", gamma: float = 5.0, alphas: Tensor | None = None
) -> Tensor:
    """Loss weight [B] of min-SNR-gamma (Hang et al. 2023) for a loss on the network's own output.

    Finite at SNR = 0, where the weight of an eps loss is its limit 1.

    Raises:
        GainMapError: the prediction is not "eps", "v" or "x0".
    """
    ratio = snr(t, alphas)
    if prediction == "eps":
        return (gamma / ratio).clamp(max=1)
    if prediction == "v":
        return ratio.clamp(max=gamma) / (ratio + 1)
    if prediction == "x0":
        return ratio.clamp(max=gamma)
    raise GainMapError(f"prediction is {prediction!r}; expected eps, v or x0")


def _abar(t: Tensor, alphas: Tensor | None) -> Tensor:
    table = alphas_cumprod() if alphas is None else alphas
    return table.to(t.device)[t]


def _roots(t: Tensor, like: Tensor, alphas: Tensor | None) -> tuple[Tensor, Tensor]:
    abar = _abar(t, alphas).view(-1, *[1] * (like.ndim - 1))
    return abar.sqrt().to(like), (1 - abar).sqrt().to(like)
