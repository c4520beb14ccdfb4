"""AVIF with 10 or 12 bits and the PQ curve."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..gm_core.codecs.avif import LOSSLESS, encode_avif
from ..gm_core.codecs.exif import exif_block
from .checking import checked
from .inputs import HDR_TOOLTIP, prefix_input
from .output_files import report, workflow_metadata
from .saving import HIDDEN, save_batch
from .saving_pq import pq_inputs, pq_picture
from .tensors import bchw_view, loaded


def format_inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "bit_depth", options=["10", "12"], default="10", tooltip="10 is read everywhere; 12 is finer."
        ),
        io.Int.Input(
            "quality", default=90, min=1, max=99, tooltip="90 is visually lossless. Not used if lossless."
        ),
        io.Boolean.Input(
            "lossless", default=False, tooltip="Keeps every 10- or 12-bit code; the file is much larger."
        ),
    ]


class SaveAVIF(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GMHDRSaveAVIF",
            display_name="Save HDR (AVIF)",
            category="GM-HDR/save",
            description="The smallest HDR file that browsers show: BT.2020, PQ, full chroma, light levels.",
            is_output_node=True,
            hidden=HIDDEN,
            inputs=[
                io.Image.Input("hdr", tooltip=HDR_TOOLTIP),
                prefix_input(),
                *format_inputs(),
                *pq_inputs(),
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
        quality: int,
        lossless: bool,
        primaries: str,
        white_nits: float,
    ) -> io.NodeOutput:
        linear = bchw_view(hdr, "hdr")
        exif = exif_block(workflow_metadata(cls.hidden))

        def encode(number: int) -> tuple[bytes, str]:
            picture, replaced = pq_picture(loaded(linear[number]), primaries, white_nits)
            data = encode_avif(
                picture,
                primaries="bt2020",
                white_nits=white_nits,
                bits=int(bit_depth),
                quality=LOSSLESS if lossless else quality,
                exif=exif,
            )
            return data, replaced

        return report(save_batch(linear, filename_prefix, ".avif", encode))


NODES: list[type[io.ComfyNode]] = [SaveAVIF]
