"""Configuration of Stage 2, the gain-map UNet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from training.config.base import TrainConfig, option
from training.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Stage2Config(TrainConfig):
    """Flags of `python -m training stage2`."""

    text: Literal["captions", "empty", "none"] = option(
        "captions", help="captions; the empty prompt everywhere; or no text encoder at all (a zero context)"
    )
    caption_dropout: float = option(
        0.1, help="share of captions replaced by the empty prompt", least=0, most=1
    )
    mask_padding: bool = option(
        False, help="hide padding tokens from the text encoder in training (never at inference), as published"
    )
    prediction_type: Literal["eps", "v", "x0"] = option("eps", help="what the UNet predicts")
    snr_gamma: float | None = option(5.0, help="min-SNR weighting; null = plain mean", above=0)
    noise_offset: float = option(0.0, help="strength of per-channel constant noise", least=0)
    input_perturbation: float = option(0.0, help="extra noise on the UNet input only", least=0)
    sample_latents: bool = option(False, help="sample the VAE posterior instead of taking its mean")
    match_qmax: bool = option(True, help="convert each row's gain to this qmax so that its HDR is kept")
    gamut: Literal["bt2020", "bt709"] = option("bt2020", help="primaries that the HDR of the triples is in")
    cache_latents: bool = option(False, help="keep VAE latents and text states on disk, keyed by content")
    cache_variants: int = option(1, help="different crops per picture while caching", least=1)
    buckets: bool = option(False, help="batch pictures by aspect ratio instead of cropping squares")
    bucket_step: int = option(64, help="bucket sides are multiples of this", least=8)
    validation_prompts: list[str] = option([], help="one caption per validation picture")
    validation_prompt_file: str | None = option(None, help="text file, one validation caption a line")
    validation_metadata: list[str] = option([], help="held-back triples for metrics")
    validation_samples: int = option(4, help="held-back triples (or pictures) per validation", least=1)
    validation_sampling_steps: int = option(20, help="sampler steps in validation", least=1, most=1000)
    scheduler_config: str | None = option(None, help="folder or JSON of the validation scheduler")
    recommended_steps: int = option(30, help="sampler steps written into the exported model")
    working_side: int = option(512, help="short side written into the exported model (0 = native)")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bucket_step % 8:
            raise ConfigError(f"bucket_step is {self.bucket_step}, expected a multiple of 8")
