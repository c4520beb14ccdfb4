"""JPEG XL with float samples."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..gm_core.codecs.exif import exif_block
from ..gm_core.codecs.jxl import encode_jxl, with_exif
from .checking import checked
from .inputs import HDR_TOOLTIP, prefix_input, primaries_input
from .output_files import preview, report, workflow_metadata
from .saving import HIDDEN, cleaned, linear_picture, save_batch
from .tensors import bchw_view


class SaveJXL(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GMHDRSaveJXL",
            display_name="Save HDR (JPEG XL)",
            category="GM-HDR/save",
            description="Lossless JPEG XL: 32-bit float, linear, smaller than OpenEXR.",
            is_output_node=True,
            hidden=HIDDEN,
            inputs=[
                io.Image.Input("hdr", tooltip=HDR_TOOLTIP),
                prefix_input(),
                primaries_input("Primaries of the HDR picture; the file is bt709."),
                io.Int.Input(
                    "effort",
                    default=4,
                    min=1,
                    max=9,
                    tooltip="1 is fast, 9 small. The pixels are the same.",
                ),
            ],
            outputs=[],
        )

    @classmethod
    @checked
    def execute(cls, hdr: torch.Tensor, filename_prefix: str, primaries: str, effort: int) -> io.NodeOutput:
        pictures = bchw_view(hdr, "hdr")
        exif = exif_block(workflow_metadata(cls.hidden))

        def encode(number: int) -> tuple[bytes, str]:
            linear = linear_picture(pictures, number, primaries, "bt709")
            picture, replaced = cleaned(linear, keep_negative=True)
            data = encode_jxl(picture, effort=effort)
            return (data if exif is None else with_exif(data, exif)), replaced

        files = save_batch(pictures, filename_prefix, ".jxl", encode)
        return report(files, preview(pictures, primaries))


NODES: list[type[io.ComfyNode]] = [SaveJXL]
