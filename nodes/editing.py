"""Changing a gain map by hand, and merging one that is a picture."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..gm_core.color import convert_primaries
from ..gm_core.gain_map import GainMapSpec, blend_gain, cap_gain, merge_hdr, scale_gain
from ..gm_core.resample import upsample_gain_map
from .checking import checked
from .gain_map_pictures import ENCODINGS, picture_coding
from .inputs import GAIN_MAP_TOOLTIP, HDR_TOOLTIP, primaries_input, qmax_input
from .tensors import check_same_size, same_batch, to_bchw, to_image, to_mask

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
        return io.NodeOutput(to_image(edited(to_bchw(gain_map, "gain_map"), spec, strength, headroom, mask)))


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
        base, coded = same_batch(sdr=to_bchw(sdr, "sdr"), gain_map=to_bchw(gain_map, "gain_map"))
        if coded.shape[-2:] != base.shape[-2:]:
            coded = upsample_gain_map(coded, base)
        gain = picture_coding(encoding, spec).to_gain_map(coded, spec=spec)
        gain = edited(gain, spec, strength, headroom, mask)
        hdr = merge_hdr(sdr=base, gain_map=gain, spec=spec)
        return io.NodeOutput(to_image(convert_primaries(hdr, primaries, convert_to)), to_image(gain))


def edited(
    gain_map: torch.Tensor, spec: GainMapSpec, strength: float, headroom: float, mask: torch.Tensor | None
) -> torch.Tensor:
    """Gain map [B,3,H,W] with its stops scaled and capped; inside a mask [B,H,W] only, where one is given.

    Half-masked pixels change by half the stops.
    """
    changed = scale_gain(gain_map=gain_map, strength=strength, spec=spec)
    if headroom < NO_CAP:
        changed = cap_gain(gain_map=changed, stops=headroom, spec=spec)
    if mask is None:
        return changed
    area = to_mask(mask)
    gain_map, changed, area = same_batch(gain_map=gain_map, changed=changed, mask=area)
    check_same_size(gain_map=gain_map, mask=area)
    return blend_gain(gain_map=gain_map, other=changed, share=area, spec=spec)


NODES: list[type[io.ComfyNode]] = [EditGainMap, Recombine]
