"""What a model file holds, read from tensor shapes, in words for error messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from .unet_keys import FIRST_CONV, is_diffusers, is_ldm, strip_prefix

_LAST_CONV = {"ldm": "out.2.weight", "diffusers": "conv_out.weight"}
_FAMILIES = {768: "SD 1.x", 1024: "SD 2.x", 1280: "SDXL refiner", 2048: "SDXL"}

# Other things that end up in the UNet slot, by a piece of a tensor name; the first match counts.
_OTHERS = (
    ("lora_", "a LoRA"),
    ("controlnet_", "a ControlNet"),
    ("taesd_", "a tiny VAE (TAESD)"),
    ("encoder.conv_in", "a VAE"),
    ("decoder.conv_in", "a VAE"),
    ("text_model.", "a CLIP text encoder"),
    ("double_blocks.", "a Flux model"),
    ("joint_blocks.", "an SD 3 model"),
)


@dataclass(frozen=True)
class UNetDescription:
    """Shape of a UNet; for anything else `layout` is empty and the numbers are 0.

    Args:
        layout: "ldm", "diffusers" or "".
        in_channels: of the first conv; 4 text to image, 8 gain map, 9 inpainting.
        out_channels: of the last conv.
        model_channels: width of the first level, 320 for SD 1.x.
        context_dim: width of the text context, 0 without text.
        family: "SD 1.x", "SD 2.x", "SDXL", "SDXL refiner", "custom", or what it is instead of a UNet.
    """

    layout: str
    in_channels: int
    out_channels: int
    model_channels: int
    context_dim: int
    family: str

    def __str__(self) -> str:
        if not self.layout:
            return self.family
        kind = {4: " text-to-image", 8: " gain-map or edit", 9: " inpainting"}.get(self.in_channels, "")
        return (
            f"a {self.in_channels}-channel {self.family}{kind} UNet ({self.out_channels} channels out, "
            f"{self.model_channels} wide, text context {self.context_dim or 'none'})"
        )


def describe_unet(weights: Mapping[str, Tensor | Sequence[int]]) -> UNetDescription:
    """Describe a model from its state dict, or from the tensor shapes in its file's header."""
    shapes = {name: _shape(value) for name, value in strip_prefix(weights).items()}
    layout = "ldm" if is_ldm(shapes) else "diffusers" if is_diffusers(shapes) else ""
    first = shapes.get(FIRST_CONV.get(layout, ""), ())
    if len(first) != 4:
        return UNetDescription("", 0, 0, 0, 0, _other(shapes))
    last = shapes.get(_LAST_CONV[layout], (0,))
    context = next((shape[1] for name, shape in shapes.items() if name.endswith("attn2.to_k.weight")), 0)
    return UNetDescription(layout, first[1], last[0], first[0], context, _FAMILIES.get(context, "custom"))


def _shape(value: Tensor | Sequence[int]) -> tuple[int, ...]:
    return tuple(value.shape if isinstance(value, Tensor) else value)


def _other(shapes: Mapping[str, Sequence[int]]) -> str:
    found = (words for piece, words in _OTHERS if any(piece in name for name in shapes))
    names = ", ".join(list(shapes)[:3]) or "none"
    return next(found, f"an unknown model of {len(shapes)} tensors ({names})")
