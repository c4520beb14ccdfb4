"""The denoising loss of Stage 2."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gm_core.conditioning import gm_unet_input
from gm_core.schedule import add_noise, min_snr_weight, v_target
from training.random_streams import integers, normal

Network = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Noise:
    """What is drawn for a batch.

    Args:
        target: [B,4,h,w] the noise the network has to explain.
        added: [B,4,h,w] the noise in its input; differs from `target` under input perturbation.
        t: [B] timesteps.
    """

    target: Tensor
    added: Tensor
    t: Tensor


def draw_noise(
    seed: int,
    numbers: Sequence[int],
    shape: torch.Size,
    *,
    timesteps: int = 1000,
    offset: float = 0.0,
    perturbation: float = 0.0,
) -> Noise:
    """Noise for samples `numbers` of latents [4,h,w], the same in every run with this seed."""
    target = normal(seed, "noise", numbers, shape)
    if offset:
        target = target + offset * normal(seed, "noise offset", numbers, (shape[0], 1, 1))
    added = target
    if perturbation:
        added = target + perturbation * normal(seed, "perturbation", numbers, shape)
    return Noise(target, added, integers(seed, "timestep", numbers, timesteps))


def denoising_loss(
    network: Network,
    *,
    condition: Tensor,
    gain_map: Tensor,
    context: Tensor,
    noise: Noise,
    alphas: Tensor,
    prediction: str = "eps",
    snr_gamma: float | None = None,
) -> Tensor:
    """Mean squared error [B] of the network's prediction for the noisy gain map.

    Args:
        network: (input [B,8,h,w], t [B], context [B,n,c]) -> prediction [B,4,h,w].
        condition, gain_map: clean latents [B,4,h,w] in model space.
        alphas: [T] cumulative alpha products.
        prediction: eps, v or x0.
        snr_gamma: min-SNR clamp; None weighs all timesteps alike.
    """
    t = noise.t.to(gain_map.device)
    target_noise = noise.target.to(gain_map)
    noisy = add_noise(gain_map, noise.added.to(gain_map), t, alphas)
    predicted = network(gm_unet_input(condition=condition, noisy_gm=noisy), t, context).float()
    if prediction == "v":
        target = v_target(gain_map, target_noise, t, alphas)
    else:
        target = target_noise if prediction == "eps" else gain_map
    error = (predicted - target.float()).square().mean(dim=(1, 2, 3))
    if snr_gamma is None:
        return error
    return error * min_snr_weight(t, prediction=prediction, gamma=snr_gamma, alphas=alphas)
