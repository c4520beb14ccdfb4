"""The trained part of the Stage 1 VAE: LoRA on every conv and linear, and the last conv as a whole.

Tensor names are PEFT's (`base_model.model.<module>.lora_A.weight`). The last conv's base weights, which the
original code trained and then lost, are kept under `base_model.model.decoder.conv_out.base_layer.*`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gm_core.errors import ModelFileError
from training.base_model import frozen
from training.checkpoint import CheckpointStore

logger = logging.getLogger(__name__)

FILE = "adapter_model.safetensors"
PREFIX = "base_model.model."
LAST_CONV = "decoder.conv_out"


def install_adapter(vae: AutoencoderKL, rank: int) -> AutoencoderKL:
    """Freeze the VAE, add LoRA (scale 1) to all of its convs and linears, free the base of the last conv."""
    frozen(vae)
    targets = [name for name, module in vae.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    config = LoraConfig(r=rank, lora_alpha=rank, lora_dropout=0.0, bias="none", target_modules=targets)
    inject_adapter_in_model(config, vae)
    for parameter in last_conv(vae).parameters():
        parameter.requires_grad_(True)
    return vae


def last_conv(vae: AutoencoderKL) -> nn.Conv2d:
    """The base layer of the decoder's last conv, whose weight also balances the losses."""
    conv: Any = vae.decoder.conv_out
    return conv.base_layer


def adapter_tensors(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Trained tensors of a VAE (or their averages) under PEFT's names."""
    return {PREFIX + name.replace(".default.", "."): value.detach().cpu().contiguous() for name, value in named.items()}


def save_adapter(named: Mapping[str, Tensor], folder: Path) -> None:
    """Write the adapter folder."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(adapter_tensors(named), folder / FILE, metadata={"format": "pt"})


def find_adapter(path: Path, *, prefer_average: bool = True) -> Path:
    """The adapter file that a user's path means: the file, its folder, a checkpoint, or a run's output.

    Raises: ModelFileError.
    """
    if path.is_file():
        return path
    newest = CheckpointStore(path).latest() if path.is_dir() else None
    names = ["vae_adapter_ema", "vae_adapter"] if prefer_average else ["vae_adapter"]
    folders = [path, *(path / name for name in names), path / "vqmodel"]
    folders += [newest / name for name in names] if newest else []
    for folder in folders:
        if (folder / FILE).is_file():
            return folder / FILE
    raise ModelFileError(f"no {FILE} in {path} or its checkpoints; expected a Stage 1 output or adapter folder")


def load_adapter(vae: AutoencoderKL, file: Path) -> AutoencoderKL:
    """Install and fill the adapter in a plain VAE. The rank is the file's.

    Raises: ModelFileError when the file was trained on another architecture.
    """
    tensors = load_file(file)
    ranks = {value.shape[0] for name, value in tensors.items() if name.endswith(".lora_A.weight")}
    if len(ranks) != 1:
        raise ModelFileError(f"{file} holds LoRA of ranks {sorted(ranks)}, expected one rank")
    install_adapter(vae, ranks.pop())
    fill_adapter(vae, tensors, str(file))
    return frozen(vae)


def fill_adapter(vae: AutoencoderKL, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy an adapter's tensors into a VAE that has one. Raises: ModelFileError on any misfit."""
    expected = {
        PREFIX + name.replace(".default.", "."): parameter
        for name, parameter in vae.named_parameters()
        if ".lora_" in name or name.startswith(f"{LAST_CONV}.base_layer.")
    }
    missing = sorted(expected.keys() - tensors.keys())
    if missing and all(f"{LAST_CONV}.base_layer." in name for name in missing):
        logger.warning("%s lacks the trained base of %s; maps will differ from training", source, LAST_CONV)
        missing = []
    misfits = [n for n in tensors if n not in expected or expected[n].shape != tensors[n].shape]
    if missing or misfits:
        raise ModelFileError(
            f"{source} does not fit this VAE: {len(missing)} tensors missing, {len(misfits)} of another shape "
            f"or name, first {(missing + misfits)[0]}"
        )
    with torch.no_grad():
        for name, value in tensors.items():
            expected[name].copy_(value)


def load_original_average(vae: AutoencoderKL, file: Path) -> None:
    """Fill an adapted VAE from the original code's `gm_decoder_ema.pth`, which alone kept the last conv.

    Raises: ModelFileError when the tensors do not line up with this VAE's.
    """
    state = torch.load(file, map_location="cpu", weights_only=True)
    shadow = state.get("shadow_params", []) if isinstance(state, dict) else []
    parameters = list(vae.parameters())
    if [value.shape for value in shadow] != [parameter.shape for parameter in parameters]:
        raise ModelFileError(f"{file} holds {len(shadow)} averages; the VAE has {len(parameters)} other parameters")
    with torch.no_grad():
        for parameter, value in zip(parameters, shadow, strict=True):
            parameter.copy_(value)


def merged_state(vae: AutoencoderKL) -> dict[str, Tensor]:
    """State dict of the plain VAE that computes the same: W + B A for every adapted layer."""
    merged: dict[str, Tensor] = {}
    adapted = {name: module for name, module in vae.named_modules() if isinstance(module, LoraLayer)}
    for name, value in vae.state_dict().items():
        module_name, _, leaf = name.partition(".base_layer.")
        if ".lora_" in name:
            continue
        if leaf == "weight":
            layer: Any = adapted[module_name]
            value = value + layer.get_delta_weight("default").to(value)
        merged[f"{module_name}.{leaf}" if leaf else name] = value.detach().clone()
    return merged
