"""The parts of a configuration that several commands share."""

from __future__ import annotations

import math
from dataclasses import MISSING, asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from gm_core.gain_coding import GainCoding
from gm_core.gain_map import GainMapSpec
from training.errors import ConfigError

SCHEMA_VERSION = 1
Preset = Literal["improved", "paper"]
Precision = Literal["no", "fp16", "bf16"]


def option(default: Any = MISSING, *, help: str) -> Any:
    """A configuration field with its help text. Without a default the flag is required."""
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata={"help": help})
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True, kw_only=True)
class CommandConfig:
    """What every command has."""

    schema_version: int = option(SCHEMA_VERSION, help="version of this configuration's layout")
    preset: Preset = option("improved", help="improved, or paper for parity with the published recipe")
    output_dir: str = option(help="folder that receives everything the command writes")
    seed: int = option(42, help="every random draw is a function of this and of the sample's number")

    def __post_init__(self) -> None:
        if self.schema_version != SCHEMA_VERSION:
            raise ConfigError(
                f"schema_version is {self.schema_version}, this trainer reads {SCHEMA_VERSION}; "
                "write a fresh file with --print_config and carry your values over"
            )
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}, expected 0 or more")

    def save(self, path: Path) -> None:
        """Write the resolved configuration as YAML that `--config` reads back."""
        path.write_text(yaml.safe_dump(asdict(self), sort_keys=False), encoding="utf-8")


@dataclass(frozen=True, kw_only=True)
class GainMapFields:
    """Eq. (1) constants and the coding of the map in the picture a network sees."""

    qmax: float = option(99.0, help="largest gain minus one (Eq. 1)")
    gain_encoding: Literal["linear", "log2"] = option("linear", help="how the map is stored in [0,1]")
    gain_log2_min: float = option(0.0, help="log2 gain of code 0 (log2 encoding; negative can darken)")
    gain_log2_max: float = option(0.0, help="log2 gain of code 1 (log2 encoding; 0 = log2(1 + qmax))")

    @property
    def spec(self) -> GainMapSpec:
        """Constants of Eq. (1)."""
        return GainMapSpec(qmax=self.qmax)

    @property
    def coding(self) -> GainCoding:
        """How the map is stored in [0,1]."""
        if self.gain_encoding == "linear":
            return GainCoding()
        peak = self.gain_log2_max or math.log2(1 + self.qmax)
        return GainCoding(encoding="log2", log2_min=self.gain_log2_min, log2_max=peak)


@dataclass(frozen=True, kw_only=True)
class DatasetFields:
    """Where training rows come from."""

    train_metadata: list[str] = option([], help="parquet files or folders, or any source `triples` reads")
    dataset_cache_dir: str | None = option(None, help="where prepared rows and latents are cached")
    image_root: str | None = option(None, help="folder that relative image paths start from")
    max_train_samples: int | None = option(None, help="use only the first N usable rows (overfit tests)")
    max_reject_fraction: float = option(0.05, help="stop when more than this share of rows is unusable")
    dataloader_num_workers: int = option(2, help="decoding processes per rank (0 = in line)")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(GainMapFields, DatasetFields, CommandConfig):
    """What both trainers have."""

    pretrained_model_name_or_path: str = option(help="base Stable Diffusion 1.x folder (or hub name)")
    resolution: int = option(512, help="training crop, pixels on the short side, a multiple of 8")
    center_crop: bool = option(False, help="crop the centre instead of a random place")
    random_flip: bool = option(True, help="mirror half of the samples")
    train_batch_size: int = option(8, help="samples per process and micro-batch")
    gradient_accumulation_steps: int = option(1, help="micro-batches per optimiser step")
    max_train_steps: int | None = option(None, help="optimiser steps; overrides num_train_epochs")
    num_train_epochs: int = option(100, help="passes over the data when max_train_steps is not given")
    learning_rate: float = option(1e-4, help="peak learning rate")
    scale_lr: bool = option(False, help="multiply the learning rate by the global batch size")
    lr_scheduler: Literal["constant", "constant_with_warmup", "linear", "cosine", "polynomial"] = option(
        "constant_with_warmup", help="shape of the learning rate over the run"
    )
    lr_warmup_steps: int = option(500, help="linear ramp at the start")
    adam_beta1: float = option(0.9, help="AdamW")
    adam_beta2: float = option(0.999, help="AdamW")
    adam_weight_decay: float = option(1e-2, help="AdamW")
    adam_epsilon: float = option(1e-8, help="AdamW")
    max_grad_norm: float = option(1.0, help="global gradient norm is clipped to this")
    use_8bit_adam: bool = option(False, help="bitsandbytes AdamW8bit (needs `pip install bitsandbytes`)")
    mixed_precision: Precision = option("no", help="autocast dtype; master weights stay float32")
    gradient_checkpointing: bool = option(False, help="recompute activations: less memory, slower")
    allow_tf32: bool = option(False, help="TF32 matrix products on Ampere and later")
    use_ema: bool = option(True, help="keep an exponential moving average of the trained weights")
    ema_decay: float = option(0.9999, help="EMA decay after its warm-up ramp (1+n)/(10+n)")
    offload_ema: bool = option(False, help="keep the EMA copy in main memory")
    checkpointing_steps: int = option(500, help="steps between checkpoints")
    checkpoints_total_limit: int | None = option(3, help="keep the newest N checkpoints")
    resume_from_checkpoint: str | None = option(None, help="'latest' or the path of a checkpoint")
    validation_steps: int = option(500, help="steps between validations (0 = never)")
    validation_image_dir: str | None = option(None, help="pictures to validate on")
    log_steps: int = option(50, help="steps between log lines")
    report_to: Literal["tensorboard", "wandb", "none"] = option(
        "tensorboard", help="tracker beside the JSONL log; wandb is the only one that sends data anywhere"
    )
    tracker_project_name: str = option("gm-hdr", help="project name for wandb")
    on_nonfinite: Literal["stop", "skip"] = option("stop", help="what to do when the gradient is NaN or Inf")
    max_nonfinite_steps: int = option(10, help="with skip: consecutive bad steps before stopping anyway")
    dry_run: bool = option(False, help="build everything, run one batch, write nothing")

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(
            self.resolution > 0 and self.resolution % 8 == 0, "resolution", self.resolution, "a multiple of 8"
        )
        for name in ("train_batch_size", "gradient_accumulation_steps", "checkpointing_steps", "log_steps"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        _require(bool(self.train_metadata), "train_metadata", self.train_metadata, "at least one source")
        _require(
            0 <= self.max_reject_fraction <= 1, "max_reject_fraction", self.max_reject_fraction, "0 to 1"
        )
        _require(0 <= self.ema_decay < 1, "ema_decay", self.ema_decay, "0 up to, not including, 1")


def _require(ok: bool, name: str, found: object, expected: str) -> None:
    if not ok:
        raise ConfigError(f"{name} is {found!r}, expected {expected}")
