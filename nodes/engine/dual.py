"""Text to SDR and gain map: the user's own sampling pass, recorded, then the gain-map pass.

The gain map depends on the SDR picture and never the reverse, so two passes compute exactly what a
lock-step loop would, and the SDR picture is the one that a stock sampler makes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE

from ...gm_core.errors import GainMapError
from ...gm_core.model_info import DEFAULT_STEPS
from ...gm_core.trajectory import ConstantCondition, Trajectory
from ...gm_core.vae_keys import SD15_LATENT_SCALE
from .conditioning import Conditioning, for_any_size
from .guider import ConditionSource, sample_branch
from .load import INFO_KEY, VAE_KEY, model_info
from .progress import DualProgress
from .record import recording
from .vae import at_working_size, check_latent

MODES = ("auto", "trajectory", "final")


@dataclass(frozen=True)
class SDRPass:
    """What the user's own sampling needs; `noise_for` gives unit noise, or none, for any latent."""

    guider: Any
    sampler: comfy.samplers.Sampler
    sigmas: torch.Tensor
    latent: torch.Tensor
    noise_for: Callable[[torch.Tensor], torch.Tensor]
    seed: int
    noise_mask: torch.Tensor | None = None
    batch_index: Sequence[int] | None = None


@dataclass(frozen=True)
class GainMapPass:
    """The gain-map branch; `start` and its mask are given for partial schedules only."""

    model: ModelPatcher
    text: Conditioning
    mode: str = "auto"
    start: torch.Tensor | None = None
    noise_mask: torch.Tensor | None = None


@dataclass(frozen=True)
class DualLatents:
    """Latents [B,4,h,w] as a VAE takes them; `sdr_denoised` is the last x0."""

    sdr: torch.Tensor
    sdr_denoised: torch.Tensor
    gain_map: torch.Tensor


def sample_dual(sdr_pass: SDRPass, gm_pass: GainMapPass) -> DualLatents:
    """Runs both passes. Raises GainMapError when model, schedule and mode do not go together."""
    check_sdr_model(sdr_pass.guider.model_patcher)
    check_latent(sdr_pass.latent, "latent_image")
    mode = resolve_mode(sdr_pass, gm_pass)
    sampler, sigmas = gain_map_schedule(sdr_pass, gm_pass, mode)
    progress = DualProgress(*(max(len(levels) - 1, 0) for levels in (sdr_pass.sigmas, sigmas)))
    trajectory = Trajectory()
    sdr, denoised = run_sdr(sdr_pass, trajectory if mode == "trajectory" else None, progress)
    if mode == "trajectory":
        source: ConditionSource = trajectory.reader()
        # Of the size at which the SDR branch started: some samplers enlarge the picture as they go.
        start = sdr.new_zeros(sdr_pass.latent.shape) if gm_pass.start is None else gm_pass.start
    else:
        condition = final_condition(denoised if unfinished(sdr_pass.sigmas) else sdr, gm_pass)
        source = ConstantCondition(condition)
        start = torch.zeros_like(condition) if gm_pass.start is None else gm_pass.start
    # In 16 bits core makes NaN where no prompt applies, and a gain map shows every rounding.
    start = start.float()
    gain_map = sample_branch(
        gm_pass.model,
        # In `final` mode the gain map may be smaller than the picture its areas were drawn on.
        for_any_size(gm_pass.text, sdr_pass.latent.shape[-2:]),
        source,
        noise=gain_map_noise(sdr_pass, gm_pass, start),
        start=start,
        sampler=sampler,
        sigmas=sigmas,
        seed=sdr_pass.seed,
        callback=progress.gain_map(gm_pass.model),
        noise_mask=gm_pass.noise_mask,
    )
    return DualLatents(sdr, denoised, gain_map)


def run_sdr(
    sdr_pass: SDRPass, trajectory: Trajectory | None, progress: DualProgress
) -> tuple[torch.Tensor, torch.Tensor]:
    """The pass that a stock sampler node would run: final latent and last x0."""
    guider = sdr_pass.guider
    samples = guider.sample(
        sdr_pass.noise_for(sdr_pass.latent),
        sdr_pass.latent,
        sdr_pass.sampler if trajectory is None else recording(sdr_pass.sampler, trajectory),
        sdr_pass.sigmas.clone(),
        denoise_mask=sdr_pass.noise_mask,
        callback=progress.sdr(guider.model_patcher),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=sdr_pass.seed,
    ).to(comfy.model_management.intermediate_device())
    if progress.sdr_x0 is None:
        return samples, samples
    return samples, guider.model_patcher.model.process_latent_out(progress.sdr_x0.cpu())


def resolve_mode(sdr_pass: SDRPass, gm_pass: GainMapPass) -> str:
    """`trajectory`: the SDR x0 of the same step, as in the paper; `final`: the finished SDR latent.

    `auto` follows the model: one that states how few steps it needs was made for finished pictures.
    """
    partial = starts_from_a_picture(sdr_pass)
    if gm_pass.mode == "trajectory" and partial and gm_pass.start is None:
        raise GainMapError(
            "gm_condition: 'trajectory' continues a gain map when the schedule starts below full noise. "
            "Connect gm_latent, or choose 'final' or 'auto'."
        )
    if gm_pass.mode != "auto":
        return gm_pass.mode
    if partial and gm_pass.start is None:
        return "final"
    own_steps = model_info(gm_pass.model).steps > 0
    return "final" if own_steps and not unfinished(sdr_pass.sigmas) else "trajectory"


def starts_from_a_picture(sdr_pass: SDRPass) -> bool:
    """Whether part of the picture is there before sampling; many full schedules start below sigma_max."""
    if len(sdr_pass.sigmas) == 0:
        return True
    full = float(sdr_pass.guider.model_patcher.get_model_object("model_sampling").sigma_max)
    below_full_noise = float(sdr_pass.sigmas[0]) < full * (1 - 1e-3)
    return below_full_noise and torch.count_nonzero(sdr_pass.latent).item() > 0


def unfinished(sigmas: torch.Tensor) -> bool:
    return len(sigmas) > 0 and float(sigmas[-1]) > 0


def gain_map_schedule(
    sdr_pass: SDRPass, gm_pass: GainMapPass, mode: str
) -> tuple[comfy.samplers.Sampler, torch.Tensor]:
    """The SDR branch's own sampler and sigmas, or a full schedule for a finished picture."""
    sampling: Any = gm_pass.model.get_model_object("model_sampling")
    if mode == "trajectory" or gm_pass.start is not None:
        return sdr_pass.sampler, levels_known(sdr_pass.sigmas, float(sampling.sigma_max))
    own = model_info(gm_pass.model).steps
    steps = own or max(len(sdr_pass.sigmas) - 1, 0) or DEFAULT_STEPS
    sampler = comfy.samplers.sampler_object("euler") if own else sdr_pass.sampler
    return sampler, comfy.samplers.calculate_sigmas(sampling, "normal", steps)


def levels_known(sigmas: torch.Tensor, sigma_max: float) -> torch.Tensor:
    """The noise levels up to `sigma_max`; that one stands for all above.

    SDR models with zero terminal SNR begin 300 times higher. The error of a gain-map model that predicts
    noise would grow with it, and no later step takes that back.
    """
    if not (sigmas > sigma_max * (1 + 1e-3)).any():
        return sigmas
    return torch.cat([sigmas.new_tensor([sigma_max]), sigmas[sigmas < sigma_max]])


def gain_map_noise(sdr_pass: SDRPass, gm_pass: GainMapPass, start: torch.Tensor) -> torch.Tensor:
    """The SDR branch's own noise. Without any its latent is noisy already, which a new gain map is not."""
    noise = sdr_pass.noise_for(start)
    if gm_pass.start is None and not noise.any():
        noise = comfy.sample.prepare_noise(start, sdr_pass.seed, sdr_pass.batch_index)
    return cast(torch.Tensor, noise)


def final_condition(sdr: torch.Tensor, gm_pass: GainMapPass) -> torch.Tensor:
    """The finished SDR latent in model space, at the size the model wants unless a gain map is continued.

    GM VAE Decode brings a smaller gain map back to full size with its guide.
    """
    if gm_pass.start is None:
        side = model_info(gm_pass.model).working_side
        sdr = at_working_size(sdr, side, cast(VAE, gm_pass.model.get_attachment(VAE_KEY)))
    return gm_pass.model.model.process_latent_in(sdr)


def check_sdr_model(model: ModelPatcher) -> None:
    """Raises GainMapError unless it may be one that paints pictures in the latents of SD 1.5."""
    if model.get_attachment(INFO_KEY) is not None:
        raise GainMapError(
            "model: this is a gain-map UNet, which paints no pictures. Connect an SD 1.5 model here, and "
            "the output of Load GM UNet to gm_model alone."
        )
    latent_format = model.get_model_object("latent_format")
    if latent_format.latent_channels != 4 or latent_format.scale_factor != SD15_LATENT_SCALE:
        raise GainMapError(
            f"model: {type(model.model).__name__} has other latents than SD 1.5, which gain-map models need. "
            "Decode its picture and connect it to GM Sampler (SDR to HDR)."
        )
