"""Looking into a model file before loading it, reading it, and saying what it is when it is no GM UNet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import comfy.utils
import safetensors
import torch

from ...gm_core.errors import ModelFileError
from ...gm_core.unet_description import describe_unet
from ...gm_core.unet_keys import strip_prefix

Shapes = Mapping[str, tuple[int, ...]]
StateDict = dict[str, torch.Tensor]

SAFE_SUFFIXES = (".safetensors", ".sft")
EXPECTED = "an SD 1.5 UNet with 8 input channels (4 SDR latent + 4 gain-map latent) and 4 output channels"
FAMILIES = ("SD 1.x", "custom")
POOLED_TEXT = ("label_emb.", "add_embedding.")
HINT = (
    "Choose a GM UNet; in a training folder it is diffusion_pytorch_model.safetensors. "
    "VAEs go into models/vae, LoRAs into models/loras."
)


def read_header(path: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Tensor shapes by name, and the metadata, of a safetensors file; no weights are read.

    Raises:
        ModelFileError: another file type, unreadable or truncated.
    """
    if path.suffix.lower() not in SAFE_SUFFIXES:
        raise ModelFileError(
            f"{path.name}: expected .safetensors, found {path.suffix or 'no suffix'!r}. Pickle files can "
            "run code and are not opened: convert it to safetensors first."
        )
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            return shapes, dict(file.metadata() or {})
    except (OSError, safetensors.SafetensorError) as error:
        raise ModelFileError(
            f"{path.name}: not a readable safetensors file ({error}). "
            "It may be truncated or of another type: copy or download it again."
        ) from error


def read_weights(path: Path) -> StateDict:
    """All tensors of a model file by name. Pickles are read as plain tensors; no code in them is run."""
    return cast(StateDict, comfy.utils.load_torch_file(str(path), safe_load=True))


def check_is_gm_unet(shapes: Shapes, name: str) -> None:
    """Raises ModelFileError that says what was expected and what `name` is instead."""
    found = describe_unet(shapes)
    pooled = any(key.startswith(POOLED_TEXT) for key in strip_prefix(shapes))
    channels = (found.in_channels, found.out_channels)
    if pooled or found.family not in FAMILIES or channels != (8, 4) or not found.context_dim:
        extra = " with SDXL's pooled text" if pooled else ""
        raise ModelFileError(f"{name}: expected {EXPECTED}, found {found}{extra}. {HINT}")
