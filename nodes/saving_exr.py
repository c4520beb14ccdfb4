"""OpenEXR files."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from comfy_api.latest import io

from ..gm_core.codecs.exr import (
    COMPRESSIONS,
    GAIN_MAP_LAYER,
    SDR_LAYER,
    encode_exr,
    equation_attributes,
    is_attribute_name,
    largest_value,
)
from ..gm_core.color import PRIMARIES
from ..gm_core.gain_map import GainMapSpec
from .checking import checked
from .inputs import HDR_TOOLTIP, prefix_input, primaries_input, qmax_input, white_input
from .output_files import preview, report, workflow_metadata
from .saving import HIDDEN, cleaned, linear_picture, save_batch
from .tensors import bchw_view, check_same_size, loaded, same_batch, to_mask

UNCHANGED = "unchanged"
LAYERS = {"sdr": SDR_LAYER, "gain_map": GAIN_MAP_LAYER}
"""Input -> layer name in the file."""
WHITE_TOOLTIP = (
    "Luminance of SDR white, written as metadata. Pixels do not change with it. "
    "203 is BT.2408's; the paper's figures use 100."
)


def format_inputs() -> list[io.Combo.Input]:
    return [
        io.Combo.Input(
            "bit_depth", options=["float", "half"], default="float", tooltip="32 or 16 bits per channel."
        ),
        io.Combo.Input(
            "compression",
            options=list(COMPRESSIONS),
            default="zip",
            tooltip="zip, zips and piz are lossless; dwaa and dwab are small but change pixels.",
        ),
        primaries_input("Primaries of the HDR picture."),
        io.Combo.Input(
            "save_as",
            options=[UNCHANGED, *PRIMARIES],
            default=UNCHANGED,
            tooltip="Primaries to convert to before saving; written into the header.",
        ),
    ]


def layer_inputs() -> list[io.Input]:
    return [
        io.Image.Input("sdr", optional=True, tooltip=f"Saved beside the HDR picture as layer '{SDR_LAYER}'."),
        io.Image.Input("gain_map", optional=True, tooltip=f"Saved beside it as layer '{GAIN_MAP_LAYER}'."),
        qmax_input(optional=True),
        io.Mask.Input(
            "mask",
            optional=True,
            tooltip="Saved as alpha: masked areas become transparent. Colours are multiplied by it, "
            "as OpenEXR asks.",
        ),
    ]


class SaveEXR(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GMHDRSaveEXR",
            display_name="Save HDR (EXR)",
            category="GM-HDR/save",
            description="OpenEXR with primaries, white level and workflow in the header. Nothing is clipped.",
            is_output_node=True,
            hidden=HIDDEN,
            inputs=[
                io.Image.Input("hdr", tooltip=HDR_TOOLTIP),
                prefix_input(),
                *format_inputs(),
                white_input(WHITE_TOOLTIP),
                *layer_inputs(),
            ],
            outputs=[],
        )

    @classmethod
    @checked
    def execute(
        cls,
        hdr: torch.Tensor,
        filename_prefix: str,
        bit_depth: str,
        compression: str,
        primaries: str,
        save_as: str,
        white_nits: float,
        sdr: torch.Tensor | None = None,
        gain_map: torch.Tensor | None = None,
        qmax: float = GainMapSpec.qmax,
        mask: torch.Tensor | None = None,
    ) -> io.NodeOutput:
        target = primaries if save_as == UNCHANGED else save_as
        pictures = layers(bchw_view(hdr, "hdr"), sdr, gain_map, mask)
        equation = {} if gain_map is None else equation_attributes(GainMapSpec(qmax=qmax))
        options = {
            "primaries": target,
            "white_nits": white_nits,
            "attributes": workflow_metadata(cls.hidden, is_attribute_name) | equation,
            "half": bit_depth == "half",
            "compression": compression,
        }
        files = save_batch(
            pictures["hdr"], filename_prefix, ".exr", partial(encode, pictures, options, primaries)
        )
        return report(files, preview(pictures["hdr"], primaries))


def encode(
    pictures: Mapping[str, torch.Tensor], options: Mapping[str, Any], primaries: str, number: int
) -> tuple[bytes, str]:
    """Picture `number` of the batches, with HDR in `primaries`, as a file, and what was replaced in it."""
    limit = largest_value(half=options["half"], compression=options["compression"])
    single = {name: loaded(batch[number]) for name, batch in pictures.items()}
    single["hdr"] = linear_picture(pictures["hdr"], number, primaries, options["primaries"])
    arrays = {name: _storable(picture, limit) for name, picture in single.items()}
    alpha = 1.0 - arrays["mask"][0][..., 0] if "mask" in arrays else None
    stored = {LAYERS[name]: arrays[name][0] for name in LAYERS if name in arrays}
    data = encode_exr(arrays["hdr"][0], alpha=alpha, layers=stored, **options)
    return data, "; ".join(f"{name}: {found}" for name, (_, found) in arrays.items() if found)


def _storable(picture: torch.Tensor, limit: float) -> tuple[np.ndarray, str]:
    """A picture without NaN and infinite values, and what was or will be replaced in it."""
    clean, replaced = cleaned(picture, keep_negative=True)
    beyond = int(np.count_nonzero(np.abs(clean) > limit))
    above = f"{beyond} beyond {limit:.0f} -> {limit:.0f}" if beyond else ""
    return clean, ", ".join(found for found in (replaced, above) if found)


def layers(
    hdr: torch.Tensor, sdr: torch.Tensor | None, gain_map: torch.Tensor | None, mask: torch.Tensor | None
) -> dict[str, torch.Tensor]:
    """Everything that goes into one file, by name, as equally long batches of equal size."""
    pictures = {"hdr": hdr}
    for name, image in zip(LAYERS, (sdr, gain_map), strict=True):
        pictures |= {} if image is None else {name: bchw_view(image, name)}
    pictures |= {} if mask is None else {"mask": to_mask(mask, hdr)}
    check_same_size(**pictures)
    return dict(zip(pictures, same_batch(**pictures), strict=True))


NODES: list[type[io.ComfyNode]] = [SaveEXR]
