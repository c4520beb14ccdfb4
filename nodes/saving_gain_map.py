"""Writing a gain map as a picture that says how to read it, for Load Gain Map and other programs."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..gm_core.codecs.png import encode_png16, is_keyword
from ..gm_core.gain_map import GainMapSpec
from ..gm_core.model_info import GainMapModelInfo
from .checking import checked
from .gain_map_pictures import picture_coding
from .inputs import prefix_input, qmax_input
from .output_files import report, workflow_metadata
from .saving import HIDDEN, pixels, save_batch
from .tensors import bchw_view, loaded

SMALLEST_LOG2_GAIN = -8.0
"""A gain of 1/256: darker than any model's map goes."""


class SaveGainMap(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GMHDRSaveGainMap",
            display_name="Save Gain Map (PNG)",
            category="GM-HDR/save",
            description="16-bit PNG with qmax and coding in its text entries. 8 bits would show as bands.",
            is_output_node=True,
            hidden=HIDDEN,
            inputs=[
                io.Image.Input(
                    "gain_map", tooltip="Gain map of Eq. (1), from GM VAE Decode or Extract Gain Map."
                ),
                qmax_input(),
                prefix_input(),
                io.Combo.Input(
                    "encoding",
                    options=["log2", "linear"],
                    default="log2",
                    tooltip="log2 keeps dark and darkening gains exactly. linear is the paper's picture, "
                    "for tools that expect it; gains below 1 are lost.",
                ),
            ],
            outputs=[],
        )

    @classmethod
    @checked
    def execute(
        cls, gain_map: torch.Tensor, qmax: float, filename_prefix: str, encoding: str
    ) -> io.NodeOutput:
        spec = GainMapSpec(qmax=qmax)
        coding = picture_coding(encoding, spec, log2_min=SMALLEST_LOG2_GAIN)
        stated = GainMapModelInfo(spec=spec, coding=coding).map_metadata()
        text = stated | workflow_metadata(cls.hidden, is_keyword)
        maps = bchw_view(gain_map, "gain_map")

        def encode(number: int) -> tuple[bytes, str]:
            picture = loaded(maps[number])
            nan, infinite = (int(fault(picture).sum()) for fault in (torch.isnan, torch.isinf))
            coded = coding.from_gain_map(picture.nan_to_num(posinf=1.0), spec=spec)
            data = encode_png16(pixels(coded), text=text)
            replaced = {f"{nan} NaN -> no gain": nan, f"{infinite} infinite -> end of range": infinite}
            return data, ", ".join(text for text, count in replaced.items() if count)

        return report(save_batch(maps, filename_prefix, ".png", encode))


NODES: list[type[io.ComfyNode]] = [SaveGainMap]
