"""The parts of a configuration that several commands share."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from gm_core.gain_coding import GainCoding
from gm_core.gain_map import GainMapSpec
from training.errors import ConfigError

SCHEMA_VERSION = 1
Preset = Literal["improved", "paper"]
Precision = Literal["no", "fp16", "bf16"]


def option(
    default: Any = MISSING,
    *,
    help: str,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> Any:
    """A configuration field with its help text and its range. Without a default the flag is required."""
    limits = [
        (f"{word} {limit:g}" if limit < 2**32 else "a 64-bit number", holds, limit)
        for word, holds, limit in (
            ("at least", operator.ge, least),
            ("above", operator.gt, above),
            ("at most", operator.le, most),
            ("below", operator.lt, below),
        )
        if limit is not None
    ]
    metadata = {"help": help, "limits": limits}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class CommandConfig:
    """What every command has."""

    schema_version: int = option(SCHEMA_VERSION, help="version of this configuration's layout")
    preset: Preset = option("improved", help="improved, or paper for parity with the published recipe")
    output_dir: str = option(help="folder that receives everything the command writes")
    seed: int = option(
        42, help="every random draw is a function of this and of the sample's number", least=0, most=2**64 - 1
    )

    def __post_init__(self) -> None:
        if self.schema_version != SCHEMA_VERSION:
            raise ConfigError(
                f"schema_version is {self.schema_version}, this trainer reads {SCHEMA_VERSION}; "
                "write a fresh file with --print_config and carry your values over"
            )
        for item in fields(self):
            _check_limits(item.name, getattr(self, item.name), item.metadata["limits"])

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

    def check_coding(self) -> None:
        """Raises: ConfigError for limits that the encoding has no use for."""
        for name in ("gain_log2_min", "gain_log2_max"):
            if self.gain_encoding == "linear" and getattr(self, name) != 0:
                raise ConfigError(
                    f"{name} is {getattr(self, name):g}, of which gain_encoding linear makes nothing; "
                    "set gain_encoding log2, or leave it out"
                )


@dataclass(frozen=True, kw_only=True)
class DatasetFields:
    """Where training rows come from."""

    train_metadata: list[str] = option(
        [], help="parquet files or folders of them, picture folders, or COCO JSON"
    )
    dataset_cache_dir: str | None = option(None, help="where prepared rows and latents are cached")
    image_root: str | None = option(None, help="folder that relative image paths start from")
    max_train_samples: int | None = option(
        None, help="use only the first N rows, unusable ones among them (overfit tests)", least=1
    )
    max_reject_fraction: float = option(
        0.05, help="stop when more than this share of rows is unusable", least=0, most=1
    )
    dataloader_num_workers: int = option(2, help="decoding processes per rank (0 = in line)", least=0)


@dataclass(frozen=True, kw_only=True)
class TrainConfig(GainMapFields, DatasetFields, CommandConfig):
    """What both trainers have."""

    pretrained_model_name_or_path: str = option(help="base Stable Diffusion 1.x folder (or hub name)")
    resolution: int = option(512, help="training crop, pixels on the short side, a multiple of 8", least=8)
    center_crop: bool = option(False, help="crop the centre instead of a random place")
    random_flip: bool = option(True, help="mirror half of the samples")
    train_batch_size: int = option(8, help="samples per process and micro-batch", least=1)
    gradient_accumulation_steps: int = option(1, help="micro-batches per optimiser step", least=1)
    max_train_steps: int | None = option(None, help="optimiser steps; overrides num_train_epochs", least=1)
    num_train_epochs: int = option(
        100, help="passes over the data when max_train_steps is not given", least=1
    )
    learning_rate: float = option(1e-4, help="peak learning rate", least=0)
    scale_lr: bool = option(False, help="multiply the learning rate by the global batch size")
    lr_scheduler: Literal["constant", "constant_with_warmup", "linear", "cosine", "polynomial"] = option(
        "constant_with_warmup", help="shape of the learning rate over the run"
    )
    lr_warmup_steps: int = option(500, help="linear ramp at the start", least=0)
    adam_beta1: float = option(0.9, help="AdamW", least=0, below=1)
    adam_beta2: float = option(0.999, help="AdamW", least=0, below=1)
    adam_weight_decay: float = option(1e-2, help="AdamW", least=0)
    adam_epsilon: float = option(1e-8, help="AdamW", least=0)
    max_grad_norm: float = option(1.0, help="global gradient norm is clipped to this", above=0)
    use_8bit_adam: bool = option(False, help="bitsandbytes AdamW8bit (needs `pip install bitsandbytes`)")
    mixed_precision: Precision = option("no", help="autocast dtype; master weights stay float32")
    gradient_checkpointing: bool = option(False, help="recompute activations: less memory, slower")
    allow_tf32: bool = option(False, help="TF32 matrix products on Ampere and later")
    use_ema: bool = option(True, help="keep an exponential moving average of the trained weights")
    ema_decay: float = option(0.9999, help="EMA decay after its warm-up ramp (1+n)/(10+n)", least=0, below=1)
    offload_ema: bool = option(False, help="keep the EMA copy in main memory")
    checkpointing_steps: int = option(500, help="steps between checkpoints", least=1)
    checkpoints_total_limit: int | None = option(3, help="keep the newest N checkpoints", least=1)
    resume_from_checkpoint: str | None = option(None, help="'latest' or the path of a checkpoint")
    validation_steps: int = option(500, help="steps between validations (0 = never)", least=0)
    validation_image_dir: str | None = option(None, help="pictures to validate on")
    log_steps: int = option(50, help="steps between log lines", least=1)
    report_to: Literal["tensorboard", "wandb", "none"] = option(
        "tensorboard", help="tracker beside the JSONL log; wandb is the only one that sends data anywhere"
    )
    tracker_project_name: str = option("gm-hdr", help="project name for wandb")
    on_nonfinite: Literal["stop", "skip"] = option("stop", help="what to do when the gradient is NaN or Inf")
    max_nonfinite_steps: int = option(
        10, help="with skip: consecutive bad steps before stopping anyway", least=0
    )
    dry_run: bool = option(False, help="build everything, run the next step, write nothing")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_coding()
        if self.resolution % 8:
            raise ConfigError(f"resolution is {self.resolution}, expected a multiple of 8")
        if not self.train_metadata:
            raise ConfigError("train_metadata is empty, expected at least one source")


def _check_limits(
    name: str, found: Any, limits: Sequence[tuple[str, Callable[[Any, float], bool], float]]
) -> None:
    if found is not None and not all(holds(found, limit) for _, holds, limit in limits):
        raise ConfigError(f"{name} is {found!r}, expected {' and '.join(text for text, _, _ in limits)}")
