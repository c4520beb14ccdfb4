"""Configuration of `export` and `generate`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from training.config.base import CommandConfig, Precision, option
from training.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ExportConfig(CommandConfig):
    """Flags of `python -m training export`."""

    stage2: str | None = option(None, help="Stage 2 output or checkpoint: writes the GM UNet")
    stage1: str | None = option(None, help="Stage 1 output or checkpoint: writes the merged VAE and its LoRA")
    pretrained_model_name_or_path: str | None = option(None, help="base model; needed for Stage 1")
    use_ema: bool = option(True, help="prefer averaged weights where the run kept them")
    dtype: Literal["float32", "float16", "bfloat16"] = option("float16", help="dtype of the single file")
    title: str = option("GM-HDR gain-map model", help="modelspec.title")
    author: str = option("", help="modelspec.author")
    license: str = option("", help="modelspec.license")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.stage1 or self.stage2):
            raise ConfigError("nothing to export: give --stage1, --stage2 or both")
        if self.stage1 and not self.pretrained_model_name_or_path:
            raise ConfigError(
                "--stage1 needs --pretrained_model_name_or_path, the VAE that the adapter belongs to"
            )


@dataclass(frozen=True, kw_only=True)
class GenerateConfig(CommandConfig):
    """Flags of `python -m training generate`."""

    output_dir: str = option("test_outputs", help="folder that receives the pictures")
    pretrained_model_name_or_path: str = option(help="base Stable Diffusion 1.x folder (or hub name)")
    unet_ckpt: str = option(help="GM UNet: exported file, checkpoint, its unet folder, or a pipeline folder")
    sdr_input_path: str | None = option(None, help="SDR picture or folder to convert; absent = text to HDR")
    validation_prompts: list[str] = option([], help="prompts")
    validation_prompt_file: str | None = option(None, help="text file, one prompt a line")
    negative_prompt: str = option("", help="negative prompt of the SDR branch")
    guidance_scale: float = option(7.5, help="classifier-free guidance of the SDR branch")
    scheduler: Literal["euler", "ddpm", "ddim", "dpm++", "pndm"] = option(
        "euler", help="euler takes the nodes' default noise levels, the others the paper's timesteps"
    )
    scheduler_config: str | None = option(None, help="folder or JSON of a scheduler, instead of the name")
    num_inference_steps: int = option(
        0, help="sampler steps (0 = the model's own, else 30)", least=0, most=1000
    )
    resolution: int | None = option(
        None,
        help="working short side for pictures (absent = the model's own, 0 = native); size for text",
        least=0,
    )
    qmax: float | None = option(None, help="largest gain minus one; absent = the model's")
    base_layer: Literal["input", "reconstruction"] = option(
        "input", help="picture conversion: apply the map to the untouched input or to its VAE copy"
    )
    sample_latents: bool = option(False, help="sample the SDR latent instead of taking its mean")
    paper_radiance: bool = option(False, help="divide the .hdr by qmax + 1, as published")
    sdr_white_nits: float = option(
        203.0, help="luminance of SDR white written into the files", above=0, most=10000
    )
    formats: list[Literal["hdr", "exr", "ultrahdr", "sheet"]] = option(
        ["hdr", "exr", "ultrahdr", "sheet"], help="files written beside the SDR and gain-map PNG"
    )
    mixed_precision: Precision = option("no", help="dtype of the networks (the VAE decodes in float32)")

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.resolution or 0) % 8:
            raise ConfigError(f"resolution is {self.resolution}, expected a multiple of 8")
        if not (self.sdr_input_path or self.validation_prompts or self.validation_prompt_file):
            raise ConfigError(
                "nothing to generate: give --sdr_input_path, --validation_prompts or a prompt file"
            )
