"""Configuration of Stage 1, the unsupervised gain-map VAE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from training.config.base import TrainConfig, option
from training.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Stage1Config(TrainConfig):
    """Flags of `python -m training stage1`."""

    bright_tmo: Literal["hard_clip_tmo", "linear_scale_tmo", "fix_mulog_tmo"] = option(
        "fix_mulog_tmo", help="brightness-aware compression between HDR and the SDR it must explain"
    )
    clamp_peak: bool = option(False, help="clamp HDR to qmax + 1 before compression, as published")
    clip_pixel: bool = option(True, help="damage the exposure of the input, ask for the original back")
    exposure_probability: float = option(0.7, help="share of samples (or batches) that are damaged")
    exposure_per_sample: bool = option(True, help="draw the damage for every sample, not once per batch")
    sample_posterior: bool = option(False, help="sample the VAE posterior instead of taking its mean")
    lora_rank: int = option(64, help="rank of the VAE adapter; its scale is 1")
    vae_loss: Literal["l2", "l1"] = option("l2", help="reconstruction term")
    perceptual_weights: str | None = option(
        None, help="local VGG-19 weights (safetensors, torchvision names); absent = no perceptual term"
    )
    perceptual_weight: float = option(1.0, help="weight of the perceptual term")
    adversarial_weight: float = option(1.0, help="weight of the adversarial term (0 = no discriminator)")
    discr_objective: Literal["logits", "sigmoid"] = option("logits", help="what the hinge loss sees")
    gradient_penalty: Literal["r1", "interpolates", "reals"] = option("r1", help="discriminator regulariser")
    gradient_penalty_weight: float = option(10.0, help="weight of the gradient penalty")
    discr_learning_rate: float = option(1e-4, help="learning rate of the discriminator")
    discr_width: int = option(512, help="widest layer of the discriminator")
    discr_depth: int = option(6, help="stride-2 layers of the discriminator")
    discr_start_step: int = option(1000, help="step at which the adversarial term begins")
    alternate_updates: bool = option(False, help="odd steps train the discriminator only, as published")
    supervised_weight: float = option(1.0, help="weight of |log2 HDR error| where a row has ground truth")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.exposure_probability <= 1:
            raise ConfigError(f"exposure_probability is {self.exposure_probability}, expected 0 to 1")
        if self.lora_rank < 1:
            raise ConfigError(f"lora_rank is {self.lora_rank}, expected 1 or more")
        if self.alternate_updates and self.adversarial_weight == 0:
            raise ConfigError("alternate_updates needs a discriminator; set adversarial_weight above 0")
