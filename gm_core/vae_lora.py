"""Stage 1 adapters: a LoRA over every conv and linear layer of a VAE, merged into plain weights."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import ModelFileError
from .json_files import read_json
from .vae_keys import lora_key_map

ADAPTER_CONFIG = "adapter_config.json"
"""PEFT's settings, beside the tensors of an adapter."""
_CONV_OUT = "decoder.conv_out"
_NAME = re.compile(
    r"(?:base_model\.model\.)?(?:vae\.)?(?P<module>.+?)\.(?:base_layer\.|modules_to_save\.(?:default\.)?)?"
    r"(?P<part>lora_A|lora_B|lora_down|lora_up|weight|bias|alpha)(?:\.(?:default\.)?weight)?"
)


@dataclass
class _Layer:
    down: Tensor | None = None
    up: Tensor | None = None
    alpha: Tensor | None = None
    whole: dict[str, Tensor] = field(default_factory=dict)


def lora_scale(config: Mapping[str, Any] | None) -> float:
    """alpha / r of an adapter, 1 where nothing is stated.

    Args:
        config: content of ADAPTER_CONFIG, or the metadata of a safetensors file, where diffusers keeps
            the same as JSON under `lora_adapter_metadata`.

    Raises:
        ModelFileError: unreadable, or ranks or alphas that differ between layers.
    """
    stated = dict(config or {})
    try:
        stated |= json.loads(stated.get("lora_adapter_metadata", "{}"))
        # diffusers puts the component's name before each entry.
        values = {name.rpartition(".")[2]: value for name, value in stated.items()}
        rank = float(values.get("r", 1))
        scale = float(values.get("lora_alpha", rank)) / (
            math.sqrt(rank) if values.get("use_rslora") else rank
        )
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise ModelFileError(
            f"unusable adapter configuration ({error}); expected r and lora_alpha"
        ) from error
    if values.get("rank_pattern") or values.get("alpha_pattern"):
        raise ModelFileError("the adapter has a rank_pattern or alpha_pattern; expected one rank and alpha")
    return scale


def adapter_settings(file: Path) -> Path:
    """Where PEFT keeps the settings of an adapter's file; they may be missing."""
    return file.with_name(ADAPTER_CONFIG)


def adapter_scale(file: Path, metadata: Mapping[str, str]) -> float:
    """alpha / r of an adapter: as its own metadata says, else ADAPTER_CONFIG beside it, else 1.

    Args:
        file: the adapter's safetensors file; it is not opened.
        metadata: string metadata of its header.

    Raises:
        ModelFileError: unreadable, or ranks or alphas that differ between layers.
    """
    beside = adapter_settings(file)
    remedy = "copy it again from the folder of the training run"
    config = read_json(beside, remedy=remedy) if beside.is_file() else {}
    try:
        return lora_scale({**config, **metadata})
    except ModelFileError as error:
        raise ModelFileError(f"{file}: {error}") from error


def merge_lora(
    vae: Mapping[str, Tensor], lora: Mapping[str, Tensor], *, strength: float = 1.0, scale: float = 1.0
) -> dict[str, Tensor]:
    """Add an adapter to a VAE: W + strength * scale * B A.

    Layers the adapter holds as a whole (the trained `decoder.conv_out`) are blended in before that.

    Args:
        vae: state dict in LDM or diffusers names.
        lora: PEFT names (`base_model.model.<module>.lora_A.weight`); an `.alpha` in it overrides `scale`.
        strength: 0 = the VAE as it is, 1 = as trained.
        scale: alpha / r, see `lora_scale`.

    Returns:
        State dict with the names and dtypes of `vae`; untouched tensors are shared.

    Raises:
        ModelFileError: a tensor of the adapter fits nowhere in the VAE.
    """
    layers, targets = _layers(lora), lora_key_map(vae)
    unknown = sorted(set(layers) - set(targets))
    if unknown:
        raise ModelFileError(
            f"{len(unknown)} of {len(layers)} adapter layers are not in the VAE, for example "
            f"{', '.join(unknown[:3])}; expected a Stage 1 adapter for this VAE"
        )
    merged = dict(vae)
    for module, layer in layers.items():
        name = targets[module]
        for part, saved in layer.whole.items():
            key = name.removesuffix("weight") + part
            merged[key] = _blend(module, vae.get(key), saved, strength)
        if layer.up is not None or layer.down is not None:
            merged[name] = _add(module, merged[name], layer, strength, scale)
    return merged


def missing_conv_out(lora: Mapping[str, Tensor]) -> bool:
    """Whether the adapter lacks the base weight of `decoder.conv_out`, which Stage 1 of the paper trained.

    PEFT saves LoRA tensors only; the weight survives in the EMA file, see `conv_out_from_ema`.
    """
    layer = _layers(lora).get(_CONV_OUT)
    return layer is not None and "weight" not in layer.whole


def conv_out_from_ema(ema: Mapping[str, Any], vae: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The trained `decoder.conv_out` from the paper's `gm_decoder_ema.pth`, found by its shape.

    Args:
        ema: the file's content, loaded with `weights_only=True`.
        vae: the VAE the adapter is for.

    Returns:
        `decoder.conv_out.weight` and `.bias`, to be merged together with the adapter.

    Raises:
        ModelFileError: no parameter list, or not exactly one conv of that shape in it.
    """
    shadow = ema.get("shadow_params")
    if not isinstance(shadow, (list, tuple)) or not all(isinstance(item, Tensor) for item in shadow):
        raise ModelFileError(
            "the EMA file has no list 'shadow_params'; expected gm_decoder_ema.pth of Stage 1"
        )
    wanted = vae[f"{_CONV_OUT}.weight"].shape
    pairs = zip(shadow, shadow[1:], strict=False)
    found = [(w, b) for w, b in pairs if w.shape == wanted and b.shape == wanted[:1]]
    if len(found) != 1:
        raise ModelFileError(
            f"the EMA file holds {len(found)} candidates for {_CONV_OUT} of shape {list(wanted)} among "
            f"{len(shadow)} tensors; expected one"
        )
    return {f"{_CONV_OUT}.weight": found[0][0], f"{_CONV_OUT}.bias": found[0][1]}


def _layers(lora: Mapping[str, Tensor]) -> dict[str, _Layer]:
    layers: dict[str, _Layer] = {}
    for name, tensor in lora.items():
        match = _NAME.fullmatch(name)
        if match is None:
            raise ModelFileError(f"adapter tensor {name} is neither a LoRA nor a layer; expected PEFT names")
        layer = layers.setdefault(match["module"], _Layer())
        if match["part"] in ("lora_A", "lora_down"):
            layer.down = tensor
        elif match["part"] in ("lora_B", "lora_up"):
            layer.up = tensor
        elif match["part"] == "alpha":
            layer.alpha = tensor
        else:
            layer.whole[match["part"]] = tensor
    return layers


def _blend(module: str, base: Tensor | None, saved: Tensor, strength: float) -> Tensor:
    if base is None or base.numel() != saved.numel():
        shape = "none" if base is None else list(base.shape)
        raise ModelFileError(f"adapter layer {module} holds a {list(saved.shape)}, the VAE has {shape}")
    return torch.lerp(base.float(), saved.to(base.device, torch.float32).reshape(base.shape), strength).to(
        base.dtype
    )


def _add(module: str, base: Tensor, layer: _Layer, strength: float, scale: float) -> Tensor:
    if layer.up is None or layer.down is None:
        raise ModelFileError(
            f"adapter layer {module} has only one of lora_A and lora_B; the file is incomplete"
        )
    up, down = (part.to(base.device, torch.float32).flatten(1) for part in (layer.up, layer.down))
    if up.shape[1] != down.shape[0] or up.shape[0] * down.shape[1] != base.numel():
        raise ModelFileError(
            f"adapter layer {module} is {list(layer.up.shape)} x {list(layer.down.shape)}, which does not "
            f"fit the VAE's {list(base.shape)}"
        )
    if layer.alpha is not None:
        scale = layer.alpha.item() / down.shape[0]
    return (base.float() + (up @ down).mul_(strength * scale).reshape(base.shape)).to(base.dtype)
