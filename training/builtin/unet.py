"""The small GM UNet of the built-in model and the noise it is trained with."""

from __future__ import annotations

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from gm_core.conditioning import gm_unet_input
from gm_core.schedule import alphas_cumprod, x0_from_v

CONTEXT_DIM = 64
"""Width of the stored text context: one all-zero token, since the model needs no text."""


def make_unet() -> UNet2DConditionModel:
    """8 channels in, 4 out, 10 M parameters; attention only at 1/32, where it sees all of the picture."""
    return UNet2DConditionModel(
        sample_size=24,
        in_channels=8,
        out_channels=4,
        block_out_channels=(64, 128, 192),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        cross_attention_dim=CONTEXT_DIM,
        attention_head_dim=8,
    )


def text_context(batch: int = 1) -> Tensor:
    """The stored context `[batch,1,CONTEXT_DIM]`."""
    return torch.zeros(batch, 1, CONTEXT_DIM)


def predict_x0(unet: nn.Module, x_t: Tensor, t: Tensor, sdr: Tensor) -> Tensor:
    """Clean gain-map latents `[B,4,h,w]` that the predicted v implies, from noisy `x_t` at timesteps `t`."""
    v = unet(gm_unet_input(condition=sdr, noisy_gm=x_t), t, text_context(len(t))).sample
    return x0_from_v(x_t, v.float(), t)


def sample_timesteps(count: int, generator: torch.Generator, *, first_step_share: float) -> Tensor:
    """Timesteps `[count]`: the very first one (pure noise) for `first_step_share` of them, the rest uniform.

    A few-step model lives or dies by its first step, which alone decides brightness and colour of the map.
    """
    t = torch.randint(0, 1000, (count,), generator=generator)
    return torch.where(torch.rand(count, generator=generator) < first_step_share, 999, t)


def noisy_latents(x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """Forward process; t = 999 is pure noise, for samplers start there, without the usual leak of 7 % x0."""
    abar = alphas_cumprod()[t].view(-1, 1, 1, 1)
    signal = torch.where(t.view(-1, 1, 1, 1) == 999, 0.0, abar.sqrt())
    return signal * x0 + (1 - abar).sqrt() * noise
