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
    exposure_probability: float = option(
        0.7, help="share of samples (or batches) that are damaged", least=0, most=1
    )
    exposure_per_sample: bool = option(True, help="draw the damage for every sample, not once per batch")
    sample_posterior: bool = option(False, help="sample the VAE posterior instead of taking its mean")
    lora_rank: int = option(64, help="rank of the VAE adapter; its scale is 1", least=1)
    vae_loss: Literal["l2", "l1"] = option("l2", help="reconstruction term")
    perceptual_weights: str | None = option(
        None, help="local VGG-19 weights (safetensors, torchvision names); absent = no perceptual term"
    )
    perceptual_weight: float = option(1.0, help="weight of the perceptual term", least=0)
    adversarial_weight: float = option(
        1.0, help="weight of the adversarial term (0 = no discriminator)", least=0
    )
    discr_objective: Literal["logits", "sigmoid"] = option("logits", help="what the hinge loss sees")
    gradient_penalty: Literal["r1", "interpolates", "reals"] = option("r1", help="discriminator regulariser")
    gradient_penalty_weight: float = option(10.0, help="weight of the gradient penalty", least=0)
    discr_learning_rate: float = option(1e-4, help="learning rate of the discriminator", least=0)
    discr_width: int = option(512, help="widest layer of the discriminator", least=1)
    discr_depth: int = option(6, help="stride-2 layers of the discriminator", least=1)
    discr_start_step: int = option(1000, help="step at which the adversarial term begins", least=0)
    alternate_updates: bool = option(False, help="odd steps train the discriminator only, as published")
    supervised_weight: float = option(
        1.0, help="weight of |log2 HDR error|, 0 for rows without ground truth, in the batch's mean", least=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alternate_updates and self.adversarial_weight == 0:
            raise ConfigError("alternate_updates needs a discriminator; set adversarial_weight above 0")
        if self.adversarial_weight > 0:
            self._check_discriminator()

    def _check_discriminator(self) -> None:
        narrowest = self.discr_width >> max(self.discr_depth - 3, 3)
        if narrowest < 1:
            raise ConfigError(
                f"discr_width is {self.discr_width}, too few for discr_depth {self.discr_depth}"
            )
        if self.resolution <= 2**self.discr_depth:
            raise ConfigError(
                f"discr_depth is {self.discr_depth}: nothing is left of a resolution of {self.resolution}"
            )
