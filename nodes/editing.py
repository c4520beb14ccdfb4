"""Changing a gain map by hand, and merging one that is a picture."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..gm_core.color import convert_primaries
from ..gm_core.gain_map import GainMapSpec, blend_gain, cap_gain, merge_hdr, scale_gain
from ..gm_core.resample import upsample_gain_map
from .batches import picture_by_picture
from .checking import checked
from .gain_map_pictures import ENCODINGS, picture_coding
from .inputs import GAIN_MAP_TOOLTIP, HDR_TOOLTIP, primaries_input, qmax_input
from .tensors import bchw_view, check_same_size, same_batch, to_mask, to_sdr

NO_CAP = 16.0


def edit_inputs() -> list[io.Input]:
    return [
        io.Float.Input(
            "strength",
            default=1.0,
            min=-4.0,
            max=4.0,
            step=0.05,
            tooltip="Scales the gain in stops: 0 = the SDR picture, 0.5 = half the stops, below 0 darkens.",
        ),
        io.Float.Input(
            "headroom",
            default=NO_CAP,
            min=0.0,
            max=NO_CAP,
            step=0.1,
            tooltip=f"Largest gain in stops; {NO_CAP:g} = no limit. Highlights keep their hue.",
        ),
        io.Mask.Input(
            "mask", optional=True, tooltip="Where to change the gain map; elsewhere it stays as it is."
        ),
    ]


class EditGainMap(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GMHDREditGainMap",
            display_name="Edit Gain Map",
            category="GM-HDR/image",
            description="Makes highlights stronger or weaker, everywhere or in a mask, before HDR Merge.",
            inputs=[
                io.Image.Input("gain_map", tooltip=GAIN_MAP_TOOLTIP),
                qmax_input(),
                *edit_inputs(),
            ],
            outputs=[io.Image.Output(display_name="gain_map", tooltip=GAIN_MAP_TOOLTIP)],
        )

    @classmethod
    @checked
    def execute(
        cls,
        gain_map: torch.Tensor,
        qmax: float,
        strength: float,
        headroom: float,
        mask: torch.Tensor | None = None,
    ) -> io.NodeOutput:
        spec = GainMapSpec(qmax=qmax)
        return io.NodeOutput(edited(bchw_view(gain_map, "gain_map"), spec, strength, headroom, mask))


class Recombine(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GMHDRRecombine",
            display_name="HDR Recombine",
            category="GM-HDR/image",
            description="An SDR picture and a gain map that is itself a picture become HDR.",
            inputs=[
                io.Image.Input("sdr", tooltip="The SDR picture, used pixel for pixel."),
                io.Image.Input(
                    "gain_map",
                    tooltip="The gain map as a picture from 0 to 1, of any size; it is fitted to the SDR.",
                ),
                io.Combo.Input(
                    "encoding",
                    options=list(ENCODINGS),
                    default="linear",
                    tooltip="How gain is stored: linear as in the paper, or log2 from no gain to 1 + qmax.",
                ),
                qmax_input("Pictures do not store it; the paper's scripts use 99."),
                primaries_input("Primaries of the HDR that this gain map makes; the paper's need bt2020."),
                primaries_input("Primaries to convert the result to.", "convert_to"),
                *edit_inputs(),
            ],
            outputs=[
                io.Image.Output(display_name="hdr", tooltip=HDR_TOOLTIP),
                io.Image.Output(display_name="gain_map", tooltip=GAIN_MAP_TOOLTIP),
            ],
        )

    @classmethod
    @checked
    def execute(
        cls,
        sdr: torch.Tensor,
        gain_map: torch.Tensor,
        encoding: str,
        qmax: float,
        primaries: str,
        convert_to: str,
        strength: float,
        headroom: float,
        mask: torch.Tensor | None = None,
    ) -> io.NodeOutput:
        spec = GainMapSpec(qmax=qmax)
        base, coded = same_batch(sdr=bchw_view(sdr, "sdr"), gain_map=bchw_view(gain_map, "gain_map"))
        coding = picture_coding(encoding, spec)

        def decoded(base: torch.Tensor, coded: torch.Tensor) -> torch.Tensor:
            if coded.shape[-2:] != base.shape[-2:]:
                coded = upsample_gain_map(to_sdr(coded, "gain_map"), to_sdr(base, "sdr"))
            return coding.to_gain_map(coded, spec=spec)

        def merged(base: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
            hdr = merge_hdr(sdr=base, gain_map=gain, spec=spec)
            return convert_primaries(hdr, primaries, convert_to)

        unedited = bchw_view(picture_by_picture(decoded, base, coded), "gain_map")
        gain_map = edited(unedited, spec, strength, headroom, mask)
        pictures = same_batch(sdr=base, gain_map=bchw_view(gain_map, "gain_map"))
        return io.NodeOutput(picture_by_picture(merged, *pictures), gain_map)


def edited(
    gain_map: torch.Tensor, spec: GainMapSpec, strength: float, headroom: float, mask: torch.Tensor | None
) -> torch.Tensor:
    """IMAGE of a gain map [B,3,H,W] with its stops scaled and capped; inside a mask [B,H,W] only, where one
    is given.

    Half-masked pixels change by half the stops.
    """

    def changed(gain_map: torch.Tensor) -> torch.Tensor:
        scaled = scale_gain(gain_map=gain_map, strength=strength, spec=spec)
        return cap_gain(gain_map=scaled, stops=headroom, spec=spec) if headroom < NO_CAP else scaled

    def blended(gain_map: torch.Tensor, area: torch.Tensor) -> torch.Tensor:
        return blend_gain(gain_map=gain_map, other=changed(gain_map), share=area, spec=spec)

    if mask is None:
        return picture_by_picture(changed, gain_map)
    # What is no number masks nothing.
    gain_map, area = same_batch(gain_map=gain_map, mask=to_mask(mask, gain_map).nan_to_num(0.0))
    check_same_size(gain_map=gain_map, mask=area)
    return picture_by_picture(blended, gain_map, area)


NODES: list[type[io.ComfyNode]] = [EditGainMap, Recombine]
