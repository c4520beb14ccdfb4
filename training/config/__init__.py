"""Typed configuration of every command: one dataclass each, shared parts by inheritance."""

from training.config.convert import ExportConfig, GenerateConfig
from training.config.data import TriplesConfig, ValidateConfig
from training.config.presets import PRESETS
from training.config.stage1 import Stage1Config
from training.config.stage2 import Stage2Config

COMMANDS = {
    "validate": ValidateConfig,
    "stage1": Stage1Config,
    "triples": TriplesConfig,
    "stage2": Stage2Config,
    "export": ExportConfig,
    "generate": GenerateConfig,
}

__all__ = [
    "COMMANDS",
    "PRESETS",
    "ExportConfig",
    "GenerateConfig",
    "Stage1Config",
    "Stage2Config",
    "TriplesConfig",
    "ValidateConfig",
]
