"""Gain maps and HDR pictures as IMAGE: merge, extract, preview."""

from __future__ import annotations

import torch
from comfy_api.latest import io, ui

from ..gm_core.color import convert_primaries, finite
from ..gm_core.gain_map import GainMapSpec, extract_gain_map, merge_hdr
from ..gm_core.tonemap import DISPLAY_OPERATORS
from .batches import picture_by_picture
from .checking import checked
from .inputs import GAIN_MAP_TOOLTIP, HDR_TOOLTIP, primaries_input, qmax_input
from .tensors import bchw_view, check_same_size, fit_to_sdr, same_batch


class Merge(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GMHDRMerge",
            display_name="HDR Merge (Eq. 1)",
            category="GM-HDR/image",
            description="HDR = (SDR^2.2 + 1/64) x (1 + gain map x qmax) - 1/64, linear, 1.0 = SDR white.",
            inputs=[
                io.Image.Input("sdr", tooltip="The SDR picture, used pixel for pixel."),
                io.Image.Input(
                    "gain_map", tooltip="From GM VAE Decode or Extract Gain Map; one channel or three."
                ),
                qmax_input(),
                primaries_input(
                    "Colour primaries of the HDR that this gain map makes. Connect 'primaries' of GM VAE "
                    "Decode; models of the paper need bt2020, the built-in one bt709."
                ),
                primaries_input(
                    "Primaries to convert the result to. The other HDR nodes expect bt709.", "convert_to"
                ),
            ],
            outputs=[io.Image.Output(display_name="hdr", tooltip=HDR_TOOLTIP)],
        )

    @classmethod
    @checked
    def execute(
        cls, sdr: torch.Tensor, gain_map: torch.Tensor, qmax: float, primaries: str, convert_to: str
    ) -> io.NodeOutput:
        pictures = same_batch(sdr=bchw_view(sdr, "sdr"), gain_map=bchw_view(gain_map, "gain_map"))
        spec = GainMapSpec(qmax=qmax)

        def merged(base: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
            hdr = merge_hdr(sdr=base, gain_map=fit_to_sdr(gain, base), spec=spec)
            return convert_primaries(hdr, primaries, convert_to)

        return io.NodeOutput(picture_by_picture(merged, *pictures))


class Extract(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GMHDRExtract",
            display_name="Extract Gain Map",
            category="GM-HDR/image",
            description="The gain map that turns an SDR picture into an HDR picture: HDR Merge backwards.",
            inputs=[
                io.Image.Input("sdr", tooltip="The SDR picture."),
                io.Image.Input("hdr", tooltip="The HDR picture of the same size. " + HDR_TOOLTIP),
                qmax_input(),
            ],
            outputs=[io.Image.Output(display_name="gain_map", tooltip=GAIN_MAP_TOOLTIP)],
        )

    @classmethod
    @checked
    def execute(cls, sdr: torch.Tensor, hdr: torch.Tensor, qmax: float) -> io.NodeOutput:
        base, target = same_batch(sdr=bchw_view(sdr, "sdr"), hdr=bchw_view(hdr, "hdr"))
        check_same_size(sdr=base, hdr=target)
        spec = GainMapSpec(qmax=qmax)

        def extracted(sdr: torch.Tensor, hdr: torch.Tensor) -> torch.Tensor:
            return extract_gain_map(sdr=sdr, hdr=hdr, spec=spec, darken=True)

        return io.NodeOutput(picture_by_picture(extracted, base, target))


class Preview(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GMHDRPreview",
            display_name="HDR Preview (Tone Map)",
            category="GM-HDR/image",
            description="Shows an HDR picture on an SDR screen, at any exposure.",
            is_output_node=True,
            inputs=[
                io.Image.Input("hdr", tooltip=HDR_TOOLTIP),
                io.Float.Input(
                    "exposure",
                    default=0.0,
                    min=-12.0,
                    max=12.0,
                    step=0.1,
                    tooltip="Stops. Lower it to look into the highlights: -3 shows what is 8 x SDR white.",
                ),
                io.Combo.Input(
                    "operator",
                    options=list(DISPLAY_OPERATORS),
                    default="reinhard",
                    tooltip="How highlights are compressed. 'clip' cuts at SDR white; "
                    "'false colour' gives each stop above SDR white a colour.",
                ),
                primaries_input("Primaries of the HDR picture."),
            ],
            outputs=[io.Image.Output(display_name="sdr", tooltip="The tone-mapped picture, 0 to 1.")],
        )

    @classmethod
    @checked
    def execute(cls, hdr: torch.Tensor, exposure: float, operator: str, primaries: str) -> io.NodeOutput:
        def shown(picture: torch.Tensor) -> torch.Tensor:
            linear = convert_primaries(finite(picture), primaries, "bt709")
            return DISPLAY_OPERATORS[operator](linear * 2.0**exposure)

        sdr = picture_by_picture(shown, bchw_view(hdr, "hdr"))
        return io.NodeOutput(sdr, ui=ui.PreviewImage(sdr))


NODES: list[type[io.ComfyNode]] = [Merge, Extract, Preview]
