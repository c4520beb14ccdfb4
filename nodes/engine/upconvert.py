"""A finished SDR picture -> its gain-map latent."""

from __future__ import annotations

from typing import cast

import comfy.sample
import comfy.samplers
import latent_preview
import torch
from comfy.model_patcher import ModelPatcher

from ...gm_core.trajectory import ConstantCondition
from .conditioning import Conditioning
from .guider import sample_branch


def sample_gain_map(
    gm_model: ModelPatcher,
    sdr_latent: torch.Tensor,
    text: Conditioning,
    *,
    seed: int,
    steps: int,
    sampler_name: str,
    scheduler: str,
) -> torch.Tensor:
    """Gain-map latent [B,4,h,w] for SDR latents [B,4,h,w], both as a VAE encodes them.

    Every picture of a batch starts from the same noise, so that it comes out as it would alone and
    the frames of a film do not flicker. With one step all samplers and schedules are euler from full noise.
    """
    if steps == 1:
        # Most are; uni_pc and dpm_fast would return noise, ddim_uniform start late, kl_optimal make NaN.
        sampler_name, scheduler = "euler", "normal"
    schedule = comfy.samplers.KSampler(
        gm_model,
        steps=steps,
        device=gm_model.load_device,
        sampler=sampler_name,
        scheduler=scheduler,
        denoise=1.0,
    )
    start = torch.zeros_like(sdr_latent, dtype=torch.float32)
    noise = cast(torch.Tensor, comfy.sample.prepare_noise(start[:1], seed))
    return sample_branch(
        gm_model,
        text,
        ConstantCondition(gm_model.model.process_latent_in(sdr_latent)),
        noise=noise.expand_as(start),
        start=start,
        sampler=comfy.samplers.sampler_object(sampler_name),
        sigmas=schedule.sigmas,
        seed=seed,
        callback=latent_preview.prepare_callback(gm_model, len(schedule.sigmas) - 1),
    )
