"""Ultra HDR JPEGs."""

from __future__ import annotations

import logging

import numpy as np
import torch
from comfy_api.latest import io

from ..gm_core.codecs.exif import MAX_JPEG_BYTES, exif_block
from ..gm_core.codecs.ultrahdr import BASES, PRESETS, encode_ultrahdr
from ..gm_core.color import convert_sdr
from .checking import checked
from .inputs import HDR_TOOLTIP, prefix_input, primaries_input
from .output_files import report, workflow_metadata
from .saving import HIDDEN, cleaned, linear_picture, save_batch
from .tensors import bchw_view, check_same_size, loaded, same_batch

log = logging.getLogger(__name__)

OWN_QUALITY = "as set"


def workflow_exif(metadata: dict[str, str]) -> bytes | None:
    """Exif block with prompt and workflow; None if there is nothing to store or a JPEG has no room for it."""
    block = exif_block(metadata)
    if block is not None and len(block) > MAX_JPEG_BYTES:
        log.warning("The workflow is too large for a JPEG (%d bytes) and is left out of it.", len(block))
        return None
    return block


def quality_inputs() -> list[io.Input]:
    return [
        io.Int.Input("quality", default=95, min=1, max=100, tooltip="JPEG quality of the SDR picture."),
        io.Int.Input(
            "gain_map_quality",
            default=98,
            min=1,
            max=100,
            tooltip="JPEG quality of the gain map in the file.",
        ),
        io.Combo.Input(
            "gain_map_scale",
            options=["1", "2", "4"],
            default="1",
            tooltip="The gain map is this many times smaller than the picture. 1 is the most exact.",
        ),
    ]


def optional_inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "preset",
            options=[OWN_QUALITY, *PRESETS],
            default=OWN_QUALITY,
            optional=True,
            tooltip="small, default, high and max set both qualities. 'as set' uses the two numbers.",
        ),
        io.Combo.Input(
            "save_as",
            options=list(BASES),
            default="bt709",
            optional=True,
            tooltip="Primaries of the file. p3 and bt2020 keep colours of the HDR picture outside bt709.",
        ),
    ]


class SaveUltraHDR(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GMHDRSaveUltraHDR",
            display_name="Save Ultra HDR (JPEG)",
            category="GM-HDR/save",
            description="A JPEG that is HDR in browsers and phones with HDR screens, SDR elsewhere.",
            is_output_node=True,
            hidden=HIDDEN,
            inputs=[
                io.Image.Input("sdr", tooltip="What SDR screens show."),
                io.Image.Input("hdr", tooltip="What HDR screens show. " + HDR_TOOLTIP),
                prefix_input(),
                *quality_inputs(),
                primaries_input("Primaries of the HDR picture; it is converted to those of the file."),
                *optional_inputs(),
            ],
            outputs=[],
        )

    @classmethod
    @checked
    def execute(
        cls,
        sdr: torch.Tensor,
        hdr: torch.Tensor,
        filename_prefix: str,
        quality: int,
        gain_map_quality: int,
        gain_map_scale: str,
        primaries: str,
        preset: str = OWN_QUALITY,
        save_as: str = "bt709",
    ) -> io.NodeOutput:
        base, pictures = same_batch(sdr=bchw_view(sdr, "sdr"), hdr=bchw_view(hdr, "hdr"))
        check_same_size(sdr=base, hdr=pictures)
        if preset != OWN_QUALITY:
            quality, gain_map_quality = PRESETS[preset]
        exif = workflow_exif(workflow_metadata(cls.hidden))

        def encode(number: int) -> tuple[bytes, str]:
            picture, replaced = cleaned(linear_picture(pictures, number, primaries, save_as))
            own = convert_sdr(loaded(base[number : number + 1]), "bt709", save_as)[0]
            shown, faulty = cleaned(own, keep_negative=True)
            data = encode_ultrahdr(
                sdr=np.clip(shown, 0.0, 1.0),
                hdr=picture,
                quality=quality,
                gain_map_quality=gain_map_quality,
                gain_map_scale=int(gain_map_scale),
                primaries=save_as,
                exif=exif,
            )
            return data, "; ".join(filter(None, (replaced, faulty and f"sdr: {faulty}")))

        return report(save_batch(pictures, filename_prefix, ".jpg", encode))


NODES: list[type[io.ComfyNode]] = [SaveUltraHDR]
