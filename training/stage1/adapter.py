"""The trained part of the Stage 1 VAE: LoRA on every conv and linear, and the last conv as a whole.

Tensor names are PEFT's (`base_model.model.<module>.lora_A.weight`). The last conv's base weights, which the
original code trained and then lost, are kept under `base_model.model.decoder.conv_out.base_layer.*`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from gm_core.errors import ModelFileError
from gm_core.model_info import QMAX_KEY, GainMapModelInfo
from gm_core.vae_lora import (
    ADAPTER_CONFIG,
    adapter_scale,
    conv_out_from_ema,
    merge_lora,
    missing_conv_out,
)
from training.base_model import frozen
from training.checkpoint import CheckpointStore
from training.tensor_files import read_checkpoint, read_metadata, read_tensors, save_tensors

logger = logging.getLogger(__name__)

FILE = "adapter_model.safetensors"
PREFIX = "base_model.model."
LAST_CONV = "decoder.conv_out"
ORIGINAL_AVERAGE = "gm_decoder_ema.pth"


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
    return {
        PREFIX + name.replace(".default.", "."): value.detach().cpu().contiguous()
        for name, value in named.items()
    }


def save_adapter(named: Mapping[str, Tensor], folder: Path, info: GainMapModelInfo) -> None:
    """Write a PEFT adapter folder whose weights file also says what the gain maps mean."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = adapter_tensors(named)
    save_tensors(tensors, folder / FILE, metadata={"format": "pt", **info.to_metadata()})
    downs = {name: value for name, value in tensors.items() if name.endswith(".lora_A.weight")}
    rank = next(iter(downs.values())).shape[0]
    targets = [name.removeprefix(PREFIX).removesuffix(".lora_A.weight") for name in downs]
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "bias": "none", "target_modules": targets}
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=1), encoding="utf-8")


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
    raise ModelFileError(
        f"no {FILE} in {path} or its checkpoints; expected a Stage 1 output or adapter folder"
    )


def merge_adapter(vae: AutoencoderKL, file: Path) -> AutoencoderKL:
    """Turn a plain VAE into the trained one, in place: W + B A for every layer the adapter has.

    Adapters of the original code lack the last conv; it is taken from a `gm_decoder_ema.pth` beside the
    adapter's folder where there is one.

    Raises: ModelFileError when the adapter does not fit.
    """
    base = vae.state_dict()
    vae.load_state_dict(merge_lora(base, read_adapter(file, base), scale=stated_scale(file)))
    return frozen(vae)


def read_adapter(file: Path, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The adapter's tensors, completed by the last conv where the original code kept it elsewhere.

    Raises: ModelFileError when a file is not readable.
    """
    tensors, _ = read_tensors(file)
    if not missing_conv_out(tensors):
        return tensors
    average = file.parent.parent / ORIGINAL_AVERAGE
    if not average.is_file():
        logger.warning("%s lacks the trained %s; its maps differ from those in training", file, LAST_CONV)
        return tensors
    whole = conv_out_from_ema(read_checkpoint(average), base)
    base_layer = f"{PREFIX}{LAST_CONV}.base_layer"
    return tensors | {base_layer + name.removeprefix(LAST_CONV): value for name, value in whole.items()}


def stated_scale(file: Path) -> float:
    """alpha / r of an adapter as the nodes read it, see `adapter_scale`. Raises: ModelFileError."""
    return adapter_scale(file, read_metadata(file))


def stated_info(file: Path) -> GainMapModelInfo | None:
    """What an adapter says about its gain maps, None where it says nothing. Raises: ModelFileError."""
    metadata = read_metadata(file)
    # Other entries do not count: LoRAs of earlier exports state their output's sigmoid and nothing else.
    return GainMapModelInfo.from_metadata(metadata) if QMAX_KEY in metadata else None


def fill_adapter(vae: AutoencoderKL, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy an adapter's tensors into a VAE that has one. Raises: ModelFileError on any misfit."""
    expected = {
        PREFIX + name.replace(".default.", "."): parameter
        for name, parameter in vae.named_parameters()
        if ".lora_" in name or name.startswith(f"{LAST_CONV}.base_layer.")
    }
    missing = sorted(expected.keys() - tensors.keys())
    misfits = [n for n in tensors if n not in expected or expected[n].shape != tensors[n].shape]
    if missing or misfits:
        raise ModelFileError(
            f"{source} does not fit this VAE: {len(missing)} tensors missing, {len(misfits)} of other shape "
            f"or name, first {(missing + misfits)[0]}"
        )
    with torch.no_grad():
        for name, value in tensors.items():
            expected[name].copy_(value)
