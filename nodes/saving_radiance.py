"""Radiance .hdr files."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..gm_core.codecs.radiance import encode_radiance
from .checking import checked
from .inputs import HDR_TOOLTIP, prefix_input, primaries_input
from .output_files import preview, report
from .saving import HIDDEN, cleaned, linear_picture, save_batch
from .tensors import bchw_view


class SaveRadiance(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GMHDRSaveRadiance",
            display_name="Save HDR (Radiance)",
            category="GM-HDR/save",
            description="Radiance .hdr, read by nearly every 3D program: 8 bits and an exponent.",
            is_output_node=True,
            hidden=HIDDEN,
            inputs=[
                io.Image.Input("hdr", tooltip=HDR_TOOLTIP),
                prefix_input(),
                primaries_input("Primaries of the HDR picture; the file is bt709."),
            ],
            outputs=[],
        )

    @classmethod
    @checked
    def execute(cls, hdr: torch.Tensor, filename_prefix: str, primaries: str) -> io.NodeOutput:
        pictures = bchw_view(hdr, "hdr")

        def encode(number: int) -> tuple[bytes, str]:
            picture, replaced = cleaned(linear_picture(pictures, number, primaries, "bt709"))
            return encode_radiance(picture), replaced

        files = save_batch(pictures, filename_prefix, ".hdr", encode)
        return report(files, preview(pictures, primaries))


NODES: list[type[io.ComfyNode]] = [SaveRadiance]
