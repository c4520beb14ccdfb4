"""Configuration of the data commands: `triples` and `validate`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from training.config.base import CommandConfig, GainMapFields, Precision, option
from training.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class SourceFields:
    """Any collection of pictures: where it is and how to read it."""

    source: list[str] = option([], help="folders, parquet, tar shards, COCO JSON, or hf:NAME")
    image_root: str | None = option(None, help="folder that relative image paths start from")
    captions: Literal["first", "all"] = option(
        "first", help="of a COCO picture's captions: the first, or one row each"
    )
    max_samples: int | None = option(None, help="stop after N pictures (trial runs)", least=1)
    rows_per_shard: int = option(1000, help="pictures per unit of work and output shard", least=1)
    max_reject_fraction: float = option(
        0.05, help="fail when more than this share is unusable", least=0, most=1
    )
    min_side: int = option(64, help="pictures with a shorter side are rejected", least=1)


@dataclass(frozen=True, kw_only=True)
class TriplesConfig(GainMapFields, SourceFields, CommandConfig):
    """Flags of `python -m training triples`."""

    gain_source: Literal["vae", "analytic", "hdr"] = option(
        "vae", help="a Stage 1 VAE; the closed form of its objective; or each row's ground-truth HDR"
    )
    pretrained_model_name_or_path: str | None = option(None, help="base model of the Stage 1 VAE")
    vae_adapter: str | None = option(None, help="Stage 1 output, checkpoint or adapter folder")
    resolution: int = option(512, help="short side at which the map is computed", least=8)
    batch_size: int = option(8, help="pictures per forward pass", least=1)
    decode_threads: int = option(4, help="threads that decode and encode pictures", least=1)
    mixed_precision: Precision = option("no", help="autocast dtype of the VAE")
    gain_map_bits: Literal[8, 16] = option(16, help="depth of the stored map; 8 only with gain_encoding log2")
    store_images: Literal["bytes", "path"] = option("bytes", help="embed the picture, or refer to it")
    sdr_white_nits: float = option(
        100.0, help="recorded in every row; pixels do not depend on it", above=0, most=10000
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_coding()
        if not self.source:
            raise ConfigError("source is empty, expected at least one folder, file or hf:NAME")
        if self.gain_source == "vae" and not self.pretrained_model_name_or_path:
            raise ConfigError("gain_source vae needs pretrained_model_name_or_path (and usually vae_adapter)")
        if self.gain_map_bits == 8 and self.gain_encoding == "linear":
            raise ConfigError(
                "an 8-bit linear map at qmax 99 has steps of 0.39 in gain; use gain_encoding log2, or 16 bits"
            )


@dataclass(frozen=True, kw_only=True)
class ValidateConfig(SourceFields, CommandConfig):
    """Flags of `python -m training validate`."""

    expect: Literal["images", "triples"] = option("images", help="pictures, or Text-SDR-GM triples")
    require_text: bool = option(True, help="reject rows with an empty caption")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.source:
            raise ConfigError("source is empty, expected at least one folder, file or hf:NAME")
