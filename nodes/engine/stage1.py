"""The Stage 1 VAE: a VAE with an adapter on every layer, whose raw output passes a sigmoid."""

from __future__ import annotations

import json
from pathlib import Path

import comfy.utils
import torch
from comfy.sd import VAE

from ...gm_core.errors import ModelFileError
from ...gm_core.vae_lora import conv_out_from_ema, lora_scale, merge_lora, missing_conv_out
from .model_file import SAFE_SUFFIXES, read_header
from .vae import check_vae

HEAD_KEY = "gmhdr.vae_output"
SIGMOID = "sigmoid"


def prepare_vae(
    vae: VAE,
    *,
    adapter: Path | None,
    ema: Path | None,
    strength: float,
    head: str,
    fp32: bool,
) -> tuple[VAE, list[str]]:
    """A new VAE from the given one, which stays as it is; and what the user should know about it.

    Args:
        adapter: Stage 1 adapter (PEFT or exported LoRA).
        ema: `gm_decoder_ema.pth`, which holds the trained last conv that PEFT does not save.
        head: "auto", "sigmoid" or "clamp".

    Raises:
        ModelFileError: a file is unreadable or does not fit the VAE.
    """
    check_vae(vae)
    weights, notes = vae.get_sd(), []
    stated_head = ""
    if adapter is not None:
        shapes, metadata = read_header(adapter)
        stated_head = metadata.get(HEAD_KEY, SIGMOID)
        layers = comfy.utils.load_torch_file(str(adapter), safe_load=True)
        if ema is not None:
            layers |= conv_out_from_ema(read_ema(ema), weights)
        elif missing_conv_out(layers):
            notes.append(
                f"{adapter.name} lacks the trained decoder.conv_out, which PEFT does not save: the "
                "result is not the network that was trained. Choose gm_decoder_ema.pth of that run."
            )
        scale = lora_scale(adapter_config(adapter) | metadata)
        try:
            weights = merge_lora(weights, layers, strength=strength, scale=scale)
        except ModelFileError as error:
            raise ModelFileError(f"{adapter.name}: {error}") from error
    prepared = VAE(sd=weights, dtype=torch.float32 if fp32 else None)
    if head == SIGMOID or (head == "auto" and stated_head == SIGMOID):
        prepared.process_output = torch.sigmoid
    return prepared, notes


def adapter_config(adapter: Path) -> dict:
    """PEFT's settings beside the adapter, if they are there."""
    path = adapter.with_name("adapter_config.json")
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{path}: not readable as JSON ({error}).") from error


def read_ema(path: Path) -> dict:
    """The averaged parameters of Stage 1; unpickled as plain tensors only, no code is run."""
    if path.suffix.lower() in SAFE_SUFFIXES:
        raise ModelFileError(
            f"{path.name}: expected gm_decoder_ema.pth of Stage 1, found a safetensors file."
        )
    try:
        return comfy.utils.load_torch_file(str(path), safe_load=True)
    except Exception as error:
        # torch documents no closed list of what a damaged or unsafe pickle raises.
        raise ModelFileError(f"{path.name}: not readable as plain tensors ({error}).") from error
