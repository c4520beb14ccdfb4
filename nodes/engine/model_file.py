"""Looking at a model file before loading it, and saying what it is when it is not a GM UNet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import safetensors

from ...gm_core.errors import ModelFileError
from ...gm_core.unet_keys import FIRST_CONV, strip_prefix

Shapes = Mapping[str, tuple[int, ...]]

SAFE_SUFFIXES = (".safetensors", ".sft")
EXPECTED = "an SD 1.5 UNet with 8 input channels (4 SDR latent + 4 gain-map latent) and 4 output channels"
LAST_CONV = {"ldm": "out.2.weight", "diffusers": "conv_out.weight"}

# What else people put into the slot, by a piece of a tensor name; the first match is reported.
OTHER_MODELS = (
    ("lora_", "a LoRA; load it with Load LoRA on top of a GM UNet"),
    ("taesd_", "a tiny VAE (TAESD); it goes into models/vae"),
    ("first_stage_model.", "a checkpoint without a UNet, or a VAE; it goes into models/vae"),
    ("decoder.up", "a VAE; it goes into models/vae"),
    ("decoder.conv_in", "a VAE; it goes into models/vae"),
    ("text_model.", "a CLIP text encoder; take diffusion_pytorch_model.safetensors beside it"),
    ("controlnet_", "a ControlNet; it goes into models/controlnet"),
    ("double_blocks.", "a Flux model"),
    ("joint_blocks.", "an SD 3 model"),
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


def check_is_gm_unet(shapes: Shapes, name: str) -> None:
    """Raises ModelFileError that says what was expected and what `name` is instead."""
    shapes = strip_prefix(shapes)
    layout = next((kind for kind, key in FIRST_CONV.items() if len(shapes.get(key, ())) == 4), None)
    found = describe(shapes, layout)
    if found:
        raise ModelFileError(f"{name}: expected {EXPECTED}, found {found}.")


def describe(shapes: Shapes, layout: str | None) -> str:
    """What a file that is not a GM UNet is; empty for a GM UNet."""
    if layout is None:
        return describe_other(shapes)
    channels_in = shapes[FIRST_CONV[layout]][1]
    channels_out = shapes.get(LAST_CONV[layout], (0,))[0]
    if any(key.startswith(("label_emb.", "add_embedding.")) for key in shapes):
        return f"an SDXL UNet ({channels_in} input channels); only SD 1.5 models share the gain map's latents"
    if channels_in == 9:
        return "a 9-channel inpainting UNet"
    if channels_in != 8:
        return f"a {channels_in}-channel UNet, an ordinary text-to-image model"
    if channels_out != 4:
        return f"a UNet with {channels_out} output channels"
    if not any(key.endswith("attn2.to_k.weight") for key in shapes):
        return "a UNet without text cross-attention"
    return ""


def describe_other(shapes: Shapes) -> str:
    for piece, description in OTHER_MODELS:
        if any(piece in key for key in shapes):
            return description
    names = ", ".join(list(shapes)[:3]) or "no tensors at all"
    return f"an unknown model ({len(shapes)} tensors: {names})"
