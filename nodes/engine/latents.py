"""ComfyUI's LATENT dictionaries and sampler settings -> the two passes of sample_dual, and back."""

from __future__ import annotations

from typing import Any, cast

import comfy.sample
import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher

from ...gm_core.errors import GainMapError
from .conditioning import Conditioning, gain_map_text
from .dual import GainMapPass, SDRPass, sample_dual
from .load import gain_map_latent, model_info
from .lora import check_loras

Latent = dict[str, Any]

SCALE_OF_EMPTY = ("downscale_ratio_spacial", "downscale_ratio_temporal")
"""What newer versions of core write into empty latents, for models with latents of another scale."""


def sample_like_ksampler(
    model: ModelPatcher,
    gm_pass: GainMapPass,
    latent_image: Latent,
    *,
    positive: Conditioning,
    negative: Conditioning,
    seed: int,
    steps: int,
    cfg: float,
    sampler_name: str,
    scheduler: str,
    denoise: float,
) -> tuple[Latent, Latent, Latent]:
    """SDR, last clean SDR prediction and gain map; the SDR latent is KSampler's, bit for bit."""
    stock = comfy.samplers.KSampler(model, steps, model.load_device, sampler_name, scheduler, denoise)
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)

    def noise_for(latent: torch.Tensor) -> torch.Tensor:
        noise = comfy.sample.prepare_noise(latent, seed, latent_image.get("batch_index"))
        return cast(torch.Tensor, noise)  # nested only for nested latents, which SD 1.5 has none of

    sdr_pass = SDRPass(
        guider=guider,
        sampler=comfy.samplers.sampler_object(sampler_name),
        sigmas=stock.sigmas,
        latent=start_for(model, latent_image),
        noise_for=noise_for,
        seed=seed,
        noise_mask=latent_image.get("noise_mask"),
        batch_index=latent_image.get("batch_index"),
    )
    return run(sdr_pass, gm_pass, latent_image)


def sample_with_guider(
    noise: Any,
    guider: Any,
    sampler: comfy.samplers.Sampler,
    sigmas: torch.Tensor,
    latent_image: Latent,
    gm_pass: GainMapPass,
) -> tuple[Latent, Latent, Latent]:
    """The same for SamplerCustomAdvanced's inputs."""
    sdr_pass = SDRPass(
        guider=guider,
        sampler=sampler,
        sigmas=sigmas,
        latent=start_for(guider.model_patcher, latent_image),
        noise_for=lambda latent: noise.generate_noise({**latent_image, "samples": latent}),
        seed=noise.seed,
        noise_mask=latent_image.get("noise_mask"),
        batch_index=latent_image.get("batch_index"),
    )
    return run(sdr_pass, gm_pass, latent_image)


def start_for(model: ModelPatcher, latent_image: Latent) -> torch.Tensor:
    """The samples; an empty latent in the channels and the size that this model has."""
    scale = {key: latent_image[key] for key in SCALE_OF_EMPTY if key in latent_image}
    return comfy.sample.fix_empty_latent_channels(model, latent_image["samples"], **scale)


def gain_map_pass(
    gm_model: ModelPatcher,
    positive: Conditioning,
    gm_positive: Conditioning | None,
    gm_latent: Latent | None,
    latent_image: Latent,
    mode: str,
) -> GainMapPass:
    """The gain-map branch as the nodes describe it; raises GainMapError when a part does not fit."""
    model_info(gm_model)
    check_loras(gm_model)
    text = gain_map_text(gm_model, gm_positive, positive)
    if gm_latent is None:
        return GainMapPass(gm_model, text, mode)
    start, sdr = gm_latent["samples"], latent_image["samples"]
    if start.shape[1:] != (4, *sdr.shape[2:]) or len(start) not in (1, len(sdr)):
        raise GainMapError(
            f"gm_latent: expected the size of latent_image, {list(sdr.shape)}, found {list(start.shape)}."
        )
    mask = gm_latent.get("noise_mask", latent_image.get("noise_mask"))
    return GainMapPass(gm_model, text, mode, start.expand(len(sdr), -1, -1, -1), mask)


def run(sdr_pass: SDRPass, gm_pass: GainMapPass, latent_image: Latent) -> tuple[Latent, Latent, Latent]:
    """Copies of the incoming dictionary around the new samples, less what is true of empty ones alone."""
    made = sample_dual(sdr_pass, gm_pass)
    kept = {key: value for key, value in latent_image.items() if key not in SCALE_OF_EMPTY}
    unmasked = {key: value for key, value in kept.items() if key != "noise_mask"}
    return (
        {**kept, "samples": made.sdr},
        {**kept, "samples": made.sdr_denoised},
        {**unmasked, **gain_map_latent(gm_pass.model, made.gain_map)},
    )
