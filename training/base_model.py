"""Parts of a Stable Diffusion 1.x model in the diffusers layout, frozen unless a trainer says otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import nn

from training.errors import ConfigError


def load_vae(model: str) -> AutoencoderKL:
    """The VAE of a pipeline folder, or a VAE folder itself. float32, frozen. Raises: ConfigError."""
    subfolder = None if (Path(model) / "config.json").is_file() else "vae"
    return frozen(_load(AutoencoderKL, model, subfolder))


def load_unet(model: str) -> UNet2DConditionModel:
    """The pipeline's UNet, trainable, float32. Raises: ConfigError."""
    return _load(UNet2DConditionModel, model, "unet")


def load_text(model: str) -> tuple[Any, Any]:
    """(tokenizer, text encoder) of a pipeline; the encoder is float32 and frozen."""
    from transformers import CLIPTextModel, CLIPTokenizer

    tokenizer = _load(CLIPTokenizer, model, "tokenizer")
    # transformers keeps the file's dtype, diffusers does not.
    return tokenizer, frozen(_load(CLIPTextModel, model, "text_encoder").float())


def load_scheduler(model: str) -> DDPMScheduler:
    """The pipeline's training schedule; the SD 1.5 one when the model has none."""
    if Path(model).is_dir() and not (Path(model) / "scheduler").is_dir():
        return sd15_scheduler()
    return _load(DDPMScheduler, model, "scheduler")


def sd15_scheduler() -> DDPMScheduler:
    """The training schedule of Stable Diffusion 1.5, that of `gm_core.schedule`."""
    return DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
    )


def frozen(module: Any) -> Any:
    """The module in evaluation mode with no trainable parameter."""
    module.eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return module


def trainable_count(module: nn.Module) -> int:
    """Number of trainable values."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def _load(kind: Any, model: str, subfolder: str | None) -> Any:
    extra = {} if subfolder is None else {"subfolder": subfolder}
    try:
        return kind.from_pretrained(model, **extra)
    except (OSError, ValueError, TypeError) as error:
        where = f"{model}/{subfolder}" if subfolder else model
        raise ConfigError(f"cannot load {kind.__name__} from {where}: {error}") from error
