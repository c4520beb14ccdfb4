"""Stage 3 with diffusers schedulers: the paper's dual loop, and the gain map of a finished picture."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_pndm import PNDMScheduler
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor

from gm_core.conditioning import gm_unet_input
from gm_core.json_files import read_json
from gm_core.schedule import sigma_at, x0_from_eps, x0_from_v
from training.errors import ConfigError


class NodeEuler(EulerDiscreteScheduler):
    """Euler over the noise levels of ComfyUI's `normal` scheduler, the default of the sampler nodes.

    They run evenly in time from full noise to the least one; levels between timesteps are interpolated in the
    logarithm, and the network is told the nearest timestep.
    """

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:  # type: ignore[override]
        last = len(self.alphas_cumprod) - 1
        times = torch.linspace(last, 0, num_inference_steps)
        levels = sigma_at(times, self.alphas_cumprod).tolist()
        super().set_timesteps(sigmas=[*levels, 0.0], device=device)
        self.timesteps = self.timesteps.round()

    @property
    def init_noise_sigma(self) -> Tensor:
        """ComfyUI starts at full noise of unit variance in model space."""
        return (self.sigmas[0].square() + 1).sqrt()


SCHEDULERS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "euler": (NodeEuler, {}),
    "ddpm": (DDPMScheduler, {}),
    "ddim": (DDIMScheduler, {"set_alpha_to_one": False}),
    # The spacing that a DPM-Solver built from a DDPM configuration takes: 999 ... 13 at 75 steps.
    "dpm++": (DPMSolverMultistepScheduler, {"timestep_spacing": "linspace"}),
    "pndm": (PNDMScheduler, {"skip_prk_steps": True, "set_alpha_to_one": False}),
}
# Where a model of zero terminal SNR has 0, ComfyUI samples as if it had this; sigma would be infinite.
LEAST_ALPHA = 4.8973451890853435e-08
PREDICTION_NAMES = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}
PREDICTIONS = {name: prediction for prediction, name in PREDICTION_NAMES.items()}

# (scaled input, timestep [B]) -> prediction [B,4,h,w]; the input of a gain-map network is `gm_unet_input`'s.
Network = Callable[[Tensor, Tensor], Tensor]


def make_scheduler(name: str, alphas: Tensor, prediction: str, source: str | None = None) -> Any:
    """A diffusers scheduler for one branch.

    Args:
        name: key of SCHEDULERS, unused when `source` is given.
        alphas: [T] cumulative alpha products of the model.
        prediction: eps, v or x0.
        source: scheduler folder or JSON file instead of the name.

    Raises: ConfigError when `source` describes no diffusers scheduler for noise levels of a model's own.
    """
    alphas = alphas.clamp(min=LEAST_ALPHA)
    betas = (1 - alphas / torch.cat([alphas.new_ones(1), alphas[:-1]])).numpy()
    fixed = {
        "trained_betas": betas,
        "prediction_type": PREDICTION_NAMES[prediction],
        "num_train_timesteps": len(alphas),
    }
    if source is not None:
        return _stated_scheduler(source, fixed)
    kind, extra = SCHEDULERS[name]
    options = {"timestep_spacing": "leading", "steps_offset": 1, **extra, **fixed}
    # DDPM clips x0 to [-1,1] by default, which is meant for pixels, not for latents.
    return kind.from_config({"clip_sample": False, **options})


@torch.no_grad()
def sample_gain_map(
    gm_network: Network, condition: Tensor, noise: Tensor, scheduler: Any, steps: int, seed: int = 0
) -> Tensor:
    """Gain-map latent [B,4,h,w] of finished SDR latents.

    Args:
        gm_network: predicts from the 8-channel input of `gm_unet_input`.
        condition: [B,4,h,w] clean SDR latent in model space.
        noise: [B,4,h,w] of unit variance.
        scheduler: fresh scheduler; it is advanced.
        seed: of the noise that ancestral schedulers add, the one that `noise` was drawn with.
    """
    branch = _Branch(scheduler, noise, steps, seed)
    for t in branch.timesteps:
        seen = gm_unet_input(condition=condition, noisy_gm=branch.scaled(t))
        branch.advance(gm_network(seen, _levels(t, noise)), t)
    return branch.latent


@torch.no_grad()
def sample_dual(
    sdr_network: Network,
    gm_network: Network,
    noise: Tensor,
    scheduler: Any,
    steps: int,
    gm_prediction: str = "eps",
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """SDR and gain-map latents from the same noise; the gain map sees the SDR branch's x0 of the same step.

    Args:
        sdr_network: guided prediction (after classifier-free guidance) from [B,4,h,w].
        gm_network: prediction from the 8-channel input, positive text only.
        scheduler: fresh scheduler of the SDR branch; the gain map gets its own copy, history included.
        gm_prediction: what the gain-map network predicts.
    """
    gm_scheduler = copy.deepcopy(scheduler)
    gm_scheduler.register_to_config(prediction_type=PREDICTION_NAMES[gm_prediction])
    sdr, gm = _Branch(scheduler, noise, steps, seed), _Branch(gm_scheduler, noise, steps, seed)
    for t in sdr.timesteps:
        prediction = sdr_network(sdr.scaled(t), _levels(t, noise))
        condition = sdr.clean(prediction, t)
        seen = gm_unet_input(condition=condition, noisy_gm=gm.scaled(t))
        gm.advance(gm_network(seen, _levels(t, noise)), t)
        sdr.advance(prediction, t)
    return sdr.latent, gm.latent


class _Branch:
    """One latent and its scheduler."""

    def __init__(self, scheduler: Any, noise: Tensor, steps: int, seed: int) -> None:
        scheduler.set_timesteps(steps, device=noise.device)
        self.scheduler = scheduler
        self.latent = noise * scheduler.init_noise_sigma
        self.generator = torch.Generator().manual_seed(seed)
        # As in diffusers' pipelines the steps' noise follows the start's; drawn anew it would be the start's.
        torch.randn(noise.shape, generator=self.generator)
        takes_generator = "generator" in scheduler.step.__code__.co_varnames
        self.extra = {"generator": self.generator} if takes_generator else {}

    @property
    def timesteps(self) -> Tensor:
        return self.scheduler.timesteps

    def scaled(self, t: Tensor) -> Tensor:
        return self.scheduler.scale_model_input(self.latent, t)

    def clean(self, prediction: Tensor, t: Tensor) -> Tensor:
        """x0 implied by the network's output at the current latent."""
        kind = self.scheduler.config.prediction_type
        if kind == "sample":
            return prediction
        x_t, level, alphas = self.scaled(t), int(t.round()), self.scheduler.alphas_cumprod
        if isinstance(self.scheduler, EulerDiscreteScheduler):
            # Its noise levels may lie between those of the timesteps.
            sigma = self.scheduler.sigmas[self.scheduler.step_index]
            level, alphas = 0, 1 / (sigma.square().view(1) + 1)
        levels = torch.full((len(x_t),), level, device=x_t.device)
        formula = x0_from_eps if kind == "epsilon" else x0_from_v
        return formula(x_t, prediction, levels, alphas)

    def advance(self, prediction: Tensor, t: Tensor) -> None:
        self.latent = self.scheduler.step(prediction, t, self.latent, **self.extra).prev_sample


def _levels(t: Tensor, like: Tensor) -> Tensor:
    return t.to(like.device).expand(len(like))


def _stated_scheduler(source: str, fixed: dict[str, Any]) -> Any:
    stated = _read_scheduler(Path(source))
    kind = getattr(diffusers, str(stated.get("_class_name")), None)
    if not (isinstance(kind, type) and issubclass(kind, SchedulerMixin)):
        raise ConfigError(
            f"{source} describes {stated.get('_class_name')!r}, which is no diffusers scheduler"
        )
    # Others, such as those of flow matching, would sample at noise levels that the model does not know.
    if not fixed.keys() <= inspect.signature(kind).parameters.keys():
        raise ConfigError(
            f"{source} describes {kind.__name__}, which does not take the noise levels of Stable Diffusion; "
            "choose one such as EulerDiscreteScheduler or DDIMScheduler"
        )
    try:
        return kind.from_config(stated, **fixed)  # type: ignore[attr-defined]  # ConfigMixin's, as all of them
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ConfigError(f"{source} is no usable {kind.__name__}: {error}") from error


def _read_scheduler(path: Path) -> dict[str, Any]:
    file = path / "scheduler_config.json" if path.is_dir() else path
    return read_json(file, remedy="point scheduler_config at that of a diffusers model", error=ConfigError)
