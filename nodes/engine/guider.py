"""Sampling the gain-map branch: one conditional pass per step, no CFG."""

from __future__ import annotations

from typing import Any, Protocol

import comfy.model_management
import comfy.utils
import torch
from comfy.conds import CONDNoiseShape
from comfy.model_patcher import ModelPatcher
from comfy.samplers import CFGGuider, Sampler, calc_cond_batch, cfg_function

from .conditioning import Conditioning
from .progress import Callback


class ConditionSource(Protocol):
    """Where the SDR condition of each denoiser call comes from."""

    def next(self, sigma: float | torch.Tensor) -> torch.Tensor:
        """[B,4,h,w] clean SDR latent in model space (x 0.18215) for the call at `sigma`."""
        ...


class GainMapGuider(CFGGuider):
    """A guider whose condition is an SDR latent that may change from call to call."""

    def __init__(self, gm_model: ModelPatcher, source: ConditionSource) -> None:
        super().__init__(gm_model)
        self.source = source

    def set_conds(self, positive: Conditioning) -> None:
        self.inner_set_conds({"positive": positive})

    def predict_noise(
        self,
        x: torch.Tensor,
        timestep: torch.Tensor,
        model_options: dict[str, Any] = {},  # noqa: B006 - the signature of core
        seed: int | None = None,
    ) -> torch.Tensor:
        condition = self.source.next(timestep).to(x)
        positive = self.conds["positive"]
        for cond in positive:
            cond["model_conds"]["c_concat"] = CONDNoiseShape(condition)
        (denoised,) = calc_cond_batch(self.inner_model, [positive], x, timestep, model_options)
        # CFG++ samplers read an unconditional prediction; without CFG it equals the conditional one.
        return cfg_function(
            self.inner_model,
            denoised,
            denoised,
            1.0,
            x,
            timestep,
            model_options,
            cond=positive,
            uncond=positive,
        )


def sample_branch(
    gm_model: ModelPatcher,
    text: Conditioning,
    source: ConditionSource,
    *,
    noise: torch.Tensor,
    start: torch.Tensor,
    sampler: Sampler,
    sigmas: torch.Tensor,
    seed: int,
    callback: Callback,
    noise_mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Gain-map latent [B,4,h,w] as a VAE takes it, sampled from `noise` around the latent `start`."""
    guider = GainMapGuider(gm_model, source)
    guider.set_conds(text)
    samples = guider.sample(
        noise,
        start,
        sampler,
        # A copy for each pass: uni_pc writes into its sigmas.
        sigmas.clone(),
        denoise_mask=noise_mask,
        callback=callback,
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=seed,
    )
    return samples.to(comfy.model_management.intermediate_device())
