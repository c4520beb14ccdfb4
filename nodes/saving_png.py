"""PNG with 16 bits a channel and the PQ curve."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..gm_core.codecs.png import encode_png_pq, is_keyword
from .checking import checked
from .inputs import HDR_TOOLTIP, prefix_input
from .output_files import report, workflow_metadata
from .saving import HIDDEN, save_batch
from .saving_pq import pq_inputs, pq_picture
from .tensors import bchw_view, loaded


class SavePNG(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GMHDRSavePNG",
            display_name="Save HDR (PNG 16-bit PQ)",
            category="GM-HDR/save",
            description="A 16-bit PNG that is HDR in browsers and on the web: BT.2020, PQ, light levels.",
            is_output_node=True,
            hidden=HIDDEN,
            inputs=[io.Image.Input("hdr", tooltip=HDR_TOOLTIP), prefix_input(), *pq_inputs()],
            outputs=[],
        )

    @classmethod
    @checked
    def execute(
        cls, hdr: torch.Tensor, filename_prefix: str, primaries: str, white_nits: float
    ) -> io.NodeOutput:
        linear = bchw_view(hdr, "hdr")
        text = workflow_metadata(cls.hidden, is_keyword)

        def encode(number: int) -> tuple[bytes, str]:
            picture, replaced = pq_picture(loaded(linear[number]), primaries, white_nits)
            return encode_png_pq(picture, primaries="bt2020", white_nits=white_nits, text=text), replaced

        return report(save_batch(linear, filename_prefix, ".png", encode))


NODES: list[type[io.ComfyNode]] = [SavePNG]
