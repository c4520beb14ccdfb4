"""Tensor names of Stable Diffusion UNets: diffusers <-> LDM, for any depth and width.

The layout is read from the names themselves, never from a config: those beside the paper's checkpoints are
overwritten with another model's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import count, takewhile
from typing import TypeVar

import torch
from torch import Tensor

from .conditioning import condition_last
from .errors import ModelFileError
from .model_info import METADATA_PREFIX

FIRST_CONV = {"ldm": "input_blocks.0.0.weight", "diffusers": "conv_in.weight"}
Value = TypeVar("Value")

_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "module.", "_orig_mod.", "unet.")
_OUTER = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_TRANSFORMER = ("norm", "proj_in", "transformer_blocks", "proj_out")


def is_diffusers(names: Iterable[str]) -> bool:
    """Whether tensor names (or a state dict) are those of a diffusers UNet."""
    # The last conv tells it from a ControlNet.
    return {FIRST_CONV["diffusers"], "conv_out.weight", "down_blocks.0.resnets.0.conv1.weight"} <= set(names)


def is_ldm(names: Iterable[str]) -> bool:
    """Whether tensor names (or a state dict) are those of an LDM UNet."""
    return FIRST_CONV["ldm"] in set(names)


def strip_prefix(weights: Mapping[str, Value]) -> dict[str, Value]:
    """Only the UNet of a checkpoint, under names without a prefix; `gmhdr.*` tensors stay.

    The values may be anything, for example shapes.
    """
    for prefix in _PREFIXES:
        if any(name.startswith(prefix) for name in weights):
            kept = (name for name in weights if name.startswith((prefix, METADATA_PREFIX)))
            return strip_prefix({name.removeprefix(prefix): weights[name] for name in kept})
    return dict(weights)


def to_ldm(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """UNet weights under LDM names; the tensors are shared, not copied. LDM names come back as they are.

    Raises:
        ModelFileError: not a UNet, or one with tensors that LDM has no name for.
    """
    weights = strip_prefix(weights)
    if is_ldm(weights):
        return weights
    return _renamed(weights, _diffusers_layout(_modules(weights)) if is_diffusers(weights) else {})


def to_diffusers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Inverse of `to_ldm`, with the same errors."""
    weights = strip_prefix(weights)
    if is_diffusers(weights):
        return weights
    layout = _ldm_layout(_modules(weights)).items() if is_ldm(weights) else ()
    return _renamed(weights, {ldm: diffusers for diffusers, ldm in layout})


def swap_condition_first(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """GM UNet whose first conv takes [SDR, gain map] <-> [gain map, SDR]; other tensors are shared.

    Raises:
        ModelFileError: the first conv does not take 8 channels.
    """
    name = FIRST_CONV["diffusers" if is_diffusers(weights) else "ldm"]
    shape = list(weights[name].shape) if name in weights else []
    if len(shape) != 4 or shape[1] != 8:
        raise ModelFileError(f"{name} has shape {shape}; expected the [channels,8,k,k] of a gain-map UNet")
    return {**weights, name: condition_last(weights[name])}


def widen_conv_in(weight: Tensor) -> Tensor:
    """First conv [o,4,k,k] -> [o,8,k,k], halved: on twice the same latent it gives what it gave before.

    Raises:
        ModelFileError: the conv does not take 4 channels.
    """
    if weight.ndim != 4 or weight.shape[1] != 4:
        raise ModelFileError(f"first conv has shape {list(weight.shape)}; expected [channels,4,k,k]")
    return torch.cat([weight, weight], dim=1) * 0.5


def _modules(names: Iterable[str]) -> set[str]:
    parts = (name.split(".") for name in names)
    return {".".join(part[:depth]) for part in parts for depth in range(1, len(part))}


def _listed(modules: set[str], stem: str) -> list[str]:
    return list(takewhile(modules.__contains__, (f"{stem}.{index}" for index in count())))


def _resnet(diffusers: str, ldm: str) -> dict[str, str]:
    return {f"{diffusers}.{theirs}": f"{ldm}.{ours}" for theirs, ours in _RESNET.items()}


def _transformer(diffusers: str, ldm: str) -> dict[str, str]:
    return {f"{diffusers}.{part}": f"{ldm}.{part}" for part in _TRANSFORMER}


def _diffusers_layout(modules: set[str]) -> dict[str, str]:
    """Module names diffusers -> LDM for a UNet with these diffusers modules."""
    layout = dict(_OUTER)
    inputs, middle, outputs = count(1), count(0), count(0)
    for level in _listed(modules, "down_blocks"):
        for index, resnet in enumerate(_listed(modules, f"{level}.resnets")):
            block = f"input_blocks.{next(inputs)}"
            layout |= _resnet(resnet, f"{block}.0")
            layout |= _transformer(f"{level}.attentions.{index}", f"{block}.1")
        if f"{level}.downsamplers.0" in modules:
            layout[f"{level}.downsamplers.0.conv"] = f"input_blocks.{next(inputs)}.0.op"
    for index, resnet in enumerate(_listed(modules, "mid_block.resnets")):
        layout |= _resnet(resnet, f"middle_block.{next(middle)}")
        if f"mid_block.attentions.{index}" in modules:
            layout |= _transformer(f"mid_block.attentions.{index}", f"middle_block.{next(middle)}")
    for level in _listed(modules, "up_blocks"):
        for index, resnet in enumerate(_listed(modules, f"{level}.resnets")):
            block, attention = f"output_blocks.{next(outputs)}", f"{level}.attentions.{index}"
            layout |= _resnet(resnet, f"{block}.0") | _transformer(attention, f"{block}.1")
            # The last block's entry stays: the upsampler comes behind its transformer where it has one.
            layout[f"{level}.upsamplers.0.conv"] = f"{block}.{2 if attention in modules else 1}.conv"
    return layout


def _ldm_layout(modules: set[str]) -> dict[str, str]:
    """Module names diffusers -> LDM for a UNet with these LDM modules."""
    layout = dict(_OUTER)
    level = index = 0
    for block in _listed(modules, "input_blocks")[1:]:
        name = f"down_blocks.{level}"
        if f"{block}.0.op" in modules:
            layout[f"{name}.downsamplers.0.conv"] = f"{block}.0.op"
            level, index = level + 1, 0
        else:
            layout |= _resnet(f"{name}.resnets.{index}", f"{block}.0")
            layout |= _transformer(f"{name}.attentions.{index}", f"{block}.1")
            index += 1
    resnets, attentions = count(0), count(0)
    for block in _listed(modules, "middle_block"):
        if f"{block}.transformer_blocks" in modules:
            layout |= _transformer(f"mid_block.attentions.{next(attentions)}", block)
        else:
            layout |= _resnet(f"mid_block.resnets.{next(resnets)}", block)
    level = index = 0
    for block in _listed(modules, "output_blocks"):
        layout |= _resnet(f"up_blocks.{level}.resnets.{index}", f"{block}.0")
        layout |= _transformer(f"up_blocks.{level}.attentions.{index}", f"{block}.1")
        index += 1
        for conv in {f"{block}.1.conv", f"{block}.2.conv"} & modules:
            layout[f"up_blocks.{level}.upsamplers.0.conv"] = conv
            level, index = level + 1, 0
    return layout


def _renamed(weights: Mapping[str, Tensor], layout: Mapping[str, str]) -> dict[str, Tensor]:
    renamed, unknown = {}, []
    for name, tensor in weights.items():
        parts = name.split(".")
        stems = (".".join(parts[:depth]) for depth in range(1, len(parts)))
        stem = next((stem for stem in stems if stem in layout), None)
        if name.startswith(METADATA_PREFIX):
            renamed[name] = tensor
        elif stem is None:
            unknown.append(name)
        else:
            renamed[layout[stem] + name[len(stem) :]] = tensor
    if unknown:
        raise ModelFileError(
            f"{len(unknown)} of {len(weights)} tensors have no place in a Stable Diffusion UNet, for example "
            f"{', '.join(unknown[:3])}; expected a UNet with diffusers or LDM names"
        )
    return renamed
