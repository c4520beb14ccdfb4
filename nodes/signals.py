"""Between our linear HDR pictures and the colour spaces of ComfyUI's own image and video savers."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..gm_core.color import finite
from ..gm_core.hdr_signal import SIGNALS, decode_signal, encode_signal
from .batches import picture_by_picture
from .checking import checked
from .inputs import HDR_TOOLTIP, primaries_input, white_input
from .tensors import bchw_view


def signal_inputs(tooltip: str) -> list[io.Input]:
    return [
        io.Combo.Input("color_space", options=list(SIGNALS), default="HDR PQ", tooltip=tooltip),
        white_input(
            "Luminance of SDR white in PQ and HLG. ComfyUI's own nodes use 203. Not used for linear."
        ),
    ]


class EncodeSignal(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GMHDREncodeSignal",
            display_name="Encode HDR Signal (PQ, HLG)",
            category="GM-HDR/image",
            description="Makes an HDR picture fit for ComfyUI's own savers: PQ, HLG or linear.",
            inputs=[
                io.Image.Input("hdr", tooltip=HDR_TOOLTIP),
                *signal_inputs(
                    "What the saver calls it. HDR PQ and HDR (HLG) are BT.2020, 0 to 1; linear is BT.709."
                ),
                primaries_input("Primaries of the HDR picture."),
            ],
            outputs=[
                io.Image.Output(display_name="signal", tooltip="For a saver set to the same colour space.")
            ],
        )

    @classmethod
    @checked
    def execute(cls, hdr: torch.Tensor, color_space: str, white_nits: float, primaries: str) -> io.NodeOutput:
        def encoded(picture: torch.Tensor) -> torch.Tensor:
            return encode_signal(finite(picture), color_space, primaries=primaries, white_nits=white_nits)

        return io.NodeOutput(picture_by_picture(encoded, bchw_view(hdr, "hdr")))


class DecodeSignal(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GMHDRDecodeSignal",
            display_name="Decode HDR Signal (PQ, HLG)",
            category="GM-HDR/image",
            description="Makes a PQ, HLG or linear picture of ComfyUI's own nodes an HDR picture.",
            inputs=[
                io.Image.Input("signal", tooltip="A picture in PQ, HLG or linear light."),
                *signal_inputs("What it is. HDR PQ and HDR (HLG) are read as BT.2020, linear as BT.709."),
                primaries_input("Primaries of the output. The other HDR nodes expect bt709.", "convert_to"),
            ],
            outputs=[io.Image.Output(display_name="hdr", tooltip=HDR_TOOLTIP)],
        )

    @classmethod
    @checked
    def execute(
        cls, signal: torch.Tensor, color_space: str, white_nits: float, convert_to: str
    ) -> io.NodeOutput:
        def decoded(picture: torch.Tensor) -> torch.Tensor:
            return decode_signal(picture, color_space, primaries=convert_to, white_nits=white_nits)

        return io.NodeOutput(picture_by_picture(decoded, bchw_view(signal, "signal")))


NODES: list[type[io.ComfyNode]] = [EncodeSignal, DecodeSignal]
