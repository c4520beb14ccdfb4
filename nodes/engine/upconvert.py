"""A finished SDR picture -> its gain-map latent."""

from __future__ import annotations

import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
import torch
from comfy.model_patcher import ModelPatcher

from ...gm_core.trajectory import ConstantCondition
from .guider import GainMapGuider


def sample_gain_map(
    gm_model: ModelPatcher,
    sdr_latent: torch.Tensor,
    positive: list,
    *,
    seed: int,
    steps: int,
    sampler_name: str,
    scheduler: str,
) -> torch.Tensor:
    """Gain-map latent [B,4,h,w] for SDR latents [B,4,h,w], both as a VAE encodes them.

    Every picture of a batch starts from the same noise, so that it comes out as it would alone and
    the frames of a film do not flicker.
    """
    schedule = comfy.samplers.KSampler(
        gm_model,
        steps=steps,
        device=gm_model.load_device,
        sampler=sampler_name,
        scheduler=scheduler,
        denoise=1.0,
    )
    guider = GainMapGuider(gm_model, ConstantCondition(gm_model.model.process_latent_in(sdr_latent)))
    guider.set_conds(positive)
    start = torch.zeros_like(sdr_latent)
    noise = comfy.sample.prepare_noise(start[:1], seed).expand_as(start)
    return guider.sample(
        noise,
        start,
        comfy.samplers.sampler_object(sampler_name),
        schedule.sigmas,
        callback=latent_preview.prepare_callback(gm_model, len(schedule.sigmas) - 1),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=seed,
    )
