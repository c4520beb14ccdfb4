"""Keeping what the SDR branch predicted at every denoiser call, without touching the model."""

from __future__ import annotations

import copy
import functools
from typing import Any

import torch
from comfy.samplers import KSAMPLER, KSamplerX0Inpaint, Sampler

from ...gm_core.trajectory import Trajectory


class Recorder(KSamplerX0Inpaint):
    """Stands in for the denoiser that a sampling function calls and records each x0 it returns.

    It shows the attributes of what it wraps, because samplers reach through them, and forwards every call:
    what is recorded is what the sampler sees, after CFG, post-CFG patches and the inpainting mask.
    """

    def __init__(self, denoiser: Any, trajectory: Trajectory) -> None:
        vars(self).update(vars(denoiser))
        self.recorded_denoiser = denoiser
        self.trajectory = trajectory

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        denoised = self.recorded_denoiser(x, sigma, *args, **kwargs)
        self.trajectory.record(sigma, denoised)
        return denoised


class RecordedGuider:
    """The same for samplers that are no KSAMPLER: they are handed the guider itself."""

    def __init__(self, guider: Any, trajectory: Trajectory) -> None:
        self.guider = guider
        self.trajectory = trajectory

    def __getattr__(self, name: str) -> Any:
        return getattr(self.guider, name)

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        denoised = self.guider(x, sigma, *args, **kwargs)
        self.trajectory.record(sigma, denoised)
        return denoised


class RecordingSampler(Sampler):
    """Runs another sampler on a recorded guider."""

    def __init__(self, sampler: Sampler, trajectory: Trajectory) -> None:
        self.sampler: Any = sampler  # core's base class declares sample() without its arguments
        self.trajectory = trajectory

    def sample(self, model_wrap: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        return self.sampler.sample(RecordedGuider(model_wrap, self.trajectory), *args, **kwargs)


def recording(sampler: Sampler, trajectory: Trajectory) -> Sampler:
    """The same sampler, which also fills `trajectory`."""
    if not isinstance(sampler, KSAMPLER):
        return RecordingSampler(sampler, trajectory)
    function = sampler.sampler_function

    @functools.wraps(function)
    def run(model: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        return function(Recorder(model, trajectory), *args, **kwargs)

    # A copy, because a subclass may sample in its own way.
    recorded = copy.copy(sampler)
    recorded.sampler_function = run
    return recorded
