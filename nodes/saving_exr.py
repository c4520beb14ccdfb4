"""OpenEXR files."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..gm_core.codecs.exr import COMPRESSIONS, encode_exr
from ..gm_core.color import PRIMARIES, convert_primaries
from .inputs import HDR_TOOLTIP, prefix_input, primaries_input, white_input
from .output_files import destination, preview, report, workflow_metadata
from .saving import HIDDEN, cleaned, save_batch
from .tensors import check_same_size, same_batch, to_bchw, to_mask

UNCHANGED = "unchanged"
LAYERS = ("sdr", "gain_map")


def format_inputs() -> list[io.Combo.Input]:
    return [
        io.Combo.Input(
            "bit_depth", options=["float", "half"], default="float", tooltip="32 or 16 bits per channel."
        ),
        io.Combo.Input(
            "compression",
            options=list(COMPRESSIONS),
            default="zip",
            tooltip="zip, zips and piz are lossless; dwaa and dwab are small but change pixels.",
        ),
        primaries_input("Primaries of the HDR picture."),
        io.Combo.Input(
            "save_as",
            options=[UNCHANGED, *PRIMARIES],
            default=UNCHANGED,
            tooltip="Primaries to convert to before saving; written into the header.",
        ),
    ]


def layer_inputs() -> list[io.Input]:
    return [
        io.Image.Input("sdr", optional=True, tooltip="Saved beside the HDR picture as layer 'sdr'."),
        io.Image.Input("gain_map", optional=True, tooltip="Saved beside it as layer 'gain_map'."),
        io.Mask.Input("mask", optional=True, tooltip="Saved as alpha: masked areas become transparent."),
    ]


class SaveEXR(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GMHDRSaveEXR",
            display_name="Save HDR (EXR)",
            category="GM-HDR/save",
            description="OpenEXR with primaries, white level and workflow in the header. Nothing is clipped.",
            is_output_node=True,
            hidden=HIDDEN,
            inputs=[
                io.Image.Input("hdr", tooltip=HDR_TOOLTIP),
                prefix_input(),
                *format_inputs(),
                white_input(),
                *layer_inputs(),
            ],
            outputs=[],
        )

    @classmethod
    def execute(
        cls,
        hdr: torch.Tensor,
        filename_prefix: str,
        bit_depth: str,
        compression: str,
        primaries: str,
        save_as: str,
        white_nits: float,
        sdr: torch.Tensor | None = None,
        gain_map: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
    ) -> io.NodeOutput:
        target = primaries if save_as == UNCHANGED else save_as
        linear = convert_primaries(to_bchw(hdr, "hdr"), primaries, target)
        pictures = layers(linear, sdr, gain_map, mask)
        attributes = workflow_metadata(cls.hidden)

        def encode(number: int) -> tuple[bytes, str]:
            arrays = {name: cleaned(batch[number], keep_negative=True) for name, batch in pictures.items()}
            data = encode_exr(
                arrays["hdr"][0],
                primaries=target,
                white_nits=white_nits,
                attributes=attributes,
                half=bit_depth == "half",
                compression=compression,
                alpha=1.0 - arrays["mask"][0][..., 0] if mask is not None else None,
                layers={name: arrays[name][0] for name in LAYERS if name in arrays},
            )
            return data, "; ".join(f"{name}: {found}" for name, (_, found) in arrays.items() if found)

        height, width = linear.shape[-2:]
        files = save_batch(len(pictures["hdr"]), destination(filename_prefix, width, height), ".exr", encode)
        return report(files, preview(convert_primaries(linear, target, "bt709")))


def layers(
    hdr: torch.Tensor, sdr: torch.Tensor | None, gain_map: torch.Tensor | None, mask: torch.Tensor | None
) -> dict[str, torch.Tensor]:
    """Everything that goes into one file, by name, as equally long batches of equal size."""
    pictures = {"hdr": hdr}
    for name, image in zip(LAYERS, (sdr, gain_map), strict=True):
        pictures |= {} if image is None else {name: to_bchw(image, name)}
    pictures |= {} if mask is None else {"mask": to_mask(mask)}
    check_same_size(**pictures)
    return dict(zip(pictures, same_batch(**pictures), strict=True))


NODES: list[type[io.ComfyNode]] = [SaveEXR]
