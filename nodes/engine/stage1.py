"""The Stage 1 VAE: a VAE with an adapter on every layer, whose raw output passes a sigmoid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from comfy.sd import VAE

from ...gm_core.errors import ModelFileError
from ...gm_core.model_info import SIGMOID_OUTPUT, VAE_OUTPUT_KEY
from ...gm_core.vae_lora import adapter_scale, conv_out_from_ema, merge_lora, missing_conv_out
from .load import mark_vae
from .model_file import SAFE_SUFFIXES, StateDict, read_header, read_weights
from .vae import check_vae


@dataclass(frozen=True)
class Adapter:
    """Stage 1 adapter (PEFT or exported LoRA), and the averaged parameters of the same run."""

    path: Path
    ema: Path | None
    strength: float


def prepare_vae(vae: VAE, *, adapter: Adapter | None, head: str, fp32: bool) -> tuple[VAE, list[str]]:
    """A new VAE from the given one, which stays as it is; and what the user should know about it.

    Args:
        head: what follows the decoder: "sigmoid", "clamp", or "auto" to go by the adapter.

    Raises:
        ModelFileError: a file is unreadable or does not fit the VAE.
    """
    check_vae(vae)
    weights, stated_head, notes = vae.get_sd(), "", []
    if adapter is not None:
        weights, stated_head, notes = adapted(weights, adapter)
    prepared = VAE(sd=weights, dtype=torch.float32 if fp32 else None)
    if adapter is None:
        # The same network still knows the model it came with.
        mark_vae(prepared, vae.patcher)
    if SIGMOID_OUTPUT in (head, stated_head if head == "auto" else ""):
        # In place: newer versions of core look at the pixels they passed, not at what is returned.
        # Core's annotation is of a function whose parameter is called image.
        prepared.process_output = torch.sigmoid_  # pyright: ignore[reportAttributeAccessIssue]
    return prepared, notes


def adapted(weights: StateDict, adapter: Adapter) -> tuple[StateDict, str, list[str]]:
    """VAE weights with the adapter merged, the head it was trained with, and notes for the user."""
    notes = []
    _, metadata = read_header(adapter.path)
    layers = read_weights(adapter.path)
    if adapter.ema is not None:
        # PEFT saves LoRA tensors only, but Stage 1 also trains the last conv.
        layers |= conv_out_from_ema(read_ema(adapter.ema), weights)
    elif missing_conv_out(layers):
        notes.append(
            f"{adapter.path.name} lacks the trained decoder.conv_out, which PEFT does not save: the "
            "result is not the network that was trained. Choose gm_decoder_ema.pth of that run."
        )
    scale = adapter_scale(adapter.path, metadata)
    try:
        merged = merge_lora(weights, layers, strength=adapter.strength, scale=scale)
    except ModelFileError as error:
        raise ModelFileError(f"{adapter.path.name}: {error}") from error
    return merged, metadata.get(VAE_OUTPUT_KEY, SIGMOID_OUTPUT), notes


def read_ema(path: Path) -> dict:
    """The averaged parameters of Stage 1; unpickled as plain tensors only, no code is run."""
    if path.suffix.lower() in SAFE_SUFFIXES:
        raise ModelFileError(
            f"{path.name}: expected gm_decoder_ema.pth of Stage 1, found a safetensors file."
        )
    try:
        return read_weights(path)
    except Exception as error:
        # torch documents no closed list of what a damaged or unsafe pickle raises.
        raise ModelFileError(f"{path.name}: not readable as plain tensors ({error}).") from error
