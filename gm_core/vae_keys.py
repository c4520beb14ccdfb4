"""Tensor names of Stable Diffusion VAEs, diffusers <-> LDM for any depth, and of TAESD files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from .errors import ModelFileError

SD15_LATENT_SCALE = 0.18215
"""Factor from the latents of an SD 1.5 VAE to model space, in which UNets and TAESD work."""

# diffusers, LDM; "#" is a number. Up blocks are counted from opposite ends.
_PARTS = (
    ("down_blocks.#.resnets.#.", "down.#.block.#."),
    ("down_blocks.#.downsamplers.0.", "down.#.downsample."),
    ("up_blocks.#.resnets.#.", "up.#.block.#."),
    ("up_blocks.#.upsamplers.0.", "up.#.upsample."),
    ("mid_block.resnets.0.", "mid.block_1."),
    ("mid_block.resnets.1.", "mid.block_2."),
    ("mid_block.attentions.0.group_norm.", "mid.attn_1.norm."),
    ("mid_block.attentions.0.to_q.", "mid.attn_1.q."),
    ("mid_block.attentions.0.to_k.", "mid.attn_1.k."),
    ("mid_block.attentions.0.to_v.", "mid.attn_1.v."),
    ("mid_block.attentions.0.to_out.0.", "mid.attn_1.proj_out."),
    ("conv_shortcut.", "nin_shortcut."),
    ("conv_norm_out.", "norm_out."),
)
_OLD_NAMES = (("query.", "to_q."), ("key.", "to_k."), ("value.", "to_v."), ("proj_attn.", "to_out.0."))
_PREFIXES = ("first_stage_model.", "vae.", "module.")
_DIFFUSERS_PART = re.compile(r"\.(?:down_blocks|up_blocks|mid_block)\.")
_ROOTS = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")


def is_diffusers(names: Iterable[str]) -> bool:
    """Whether tensor names (or a state dict) are those of a diffusers VAE, or of one half of it."""
    return any(name.startswith(("encoder.mid_block.", "decoder.mid_block.")) for name in names)


def strip_prefix(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Only the VAE of a checkpoint, under names without a prefix."""
    for prefix in _PREFIXES:
        if any(name.startswith(prefix) for name in weights):
            return {name[len(prefix) :]: weights[name] for name in weights if name.startswith(prefix)}
    return dict(weights)


def to_ldm(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """VAE weights under LDM names; tensors are views, attention projections become 1x1 convs.

    Raises:
        ModelFileError: not a VAE, or one with tensors that LDM has no name for.
    """
    weights = strip_prefix(weights)
    levels = _levels(weights)
    renamed = {ldm_name(name, levels): tensor for name, tensor in weights.items()}
    _check(renamed, len(weights))
    return {
        name: tensor[..., None, None] if _is_projection(name) and tensor.ndim == 2 else tensor
        for name, tensor in renamed.items()
    }


def to_diffusers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Inverse of `to_ldm`, with the same errors; attention projections become linear."""
    weights = strip_prefix(weights)
    levels = _levels(weights)
    ldm = to_ldm(weights)
    return {
        diffusers_name(name, levels): tensor[..., 0, 0] if _is_projection(name) else tensor
        for name, tensor in ldm.items()
    }


def ldm_name(name: str, levels: int) -> str:
    """Name of a tensor or, ending in a dot, of a module in LDM; LDM names stay as they are."""
    for old, new in _OLD_NAMES:
        name = name.replace(f".attentions.0.{old}", f".attentions.0.{new}")
    return _translated(_mirrored(name, levels), _PARTS)


def diffusers_name(name: str, levels: int) -> str:
    """Inverse of `ldm_name` for LDM names."""
    return _mirrored(_translated(name, [(ldm, diffusers) for diffusers, ldm in _PARTS]), levels)


def lora_key_map(weights: Mapping[str, Tensor]) -> dict[str, str]:
    """Diffusers module of every conv and linear layer -> name of its weight in this VAE (LDM or diffusers).

    72 entries for the VAE of SD 1.5.
    """
    levels = _levels(weights)
    layers = [name for name, t in weights.items() if name.endswith(".weight") and t.ndim in (2, 4)]
    return {diffusers_name(ldm_name(name, levels), levels).removesuffix(".weight"): name for name in layers}


def join_taesd(encoder: Mapping[str, Tensor], decoder: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """TAESD's two files -> the one file that ComfyUI's stock VAE loader reads as one for SD 1.5 latents.

    Args:
        encoder: weights of the encoder alone, names such as `0.weight`.
        decoder: weights of the decoder alone, names such as `1.weight`.
    """
    joined = {f"taesd_encoder.{name}": tensor for name, tensor in encoder.items()}
    joined |= {f"taesd_decoder.{name}": tensor for name, tensor in decoder.items()}
    return joined | {"vae_scale": torch.tensor(SD15_LATENT_SCALE), "vae_shift": torch.tensor(0.0)}


def split_taesd(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Inverse of `join_taesd`: encoder and decoder weights.

    Raises:
        ModelFileError: a half is missing.
    """
    halves = []
    for prefix in ("taesd_encoder.", "taesd_decoder."):
        half = {name[len(prefix) :]: tensor for name, tensor in weights.items() if name.startswith(prefix)}
        if not half:
            names = ", ".join(list(weights)[:3]) or "none"
            raise ModelFileError(
                f"no tensors named {prefix}* among {len(weights)} ({names}); expected a TAESD"
            )
        halves.append(half)
    return halves[0], halves[1]


def _levels(names: Iterable[str]) -> int:
    found = (re.match(r"decoder\.up(?:_blocks)?\.(\d+)\.", name) for name in names)
    return max((int(match[1]) + 1 for match in found if match), default=0)


def _mirrored(name: str, levels: int) -> str:
    return re.sub(r"\bup_blocks\.(\d+)", lambda match: f"up_blocks.{levels - 1 - int(match[1])}", name)


def _translated(name: str, parts: Iterable[tuple[str, str]]) -> str:
    for source, target in parts:
        pattern = r"(?<![^.])" + re.escape(source).replace(r"\#", r"(\d+)")
        numbers = iter(range(1, 10))
        name = re.sub(pattern, re.sub("#", lambda _, n=numbers: rf"\{next(n)}", target), name)
    return name


def _is_projection(name: str) -> bool:
    return re.fullmatch(r"(?:en|de)coder\.mid\.attn_1\.(?:q|k|v|proj_out)\.weight", name) is not None


def _check(renamed: Mapping[str, Tensor], expected: int) -> None:
    unknown = [name for name in renamed if not name.startswith(_ROOTS) or _DIFFUSERS_PART.search(name)]
    if unknown or len(renamed) != expected:
        raise ModelFileError(
            f"{len(unknown)} of {expected} tensors have no place in a Stable Diffusion VAE, for example "
            f"{', '.join(unknown[:3])}; expected a VAE with diffusers or LDM names"
        )
