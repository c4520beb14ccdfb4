"""Reading HDR pictures from ComfyUI's input folder."""

from __future__ import annotations

import logging

import numpy as np
import torch
from comfy_api.latest import io

from ..gm_core.codecs.files import read_image
from ..gm_core.codecs.image import HDRImage
from ..gm_core.codecs.sanitize import sanitize
from ..gm_core.color import PRIMARIES, convert_primaries, convert_sdr, linear_to_srgb
from ..gm_core.gain_map import extract_gain_map, fitting_spec
from .checking import checked
from .input_files import file_input, input_fingerprint, input_path, to_bchw_array, why_unreadable
from .inputs import HDR_TOOLTIP
from .tensors import to_image

log = logging.getLogger(__name__)

SUFFIXES = (".exr", ".hdr", ".pic", ".jpg", ".jpeg", ".png", ".avif", ".jxl")


class LoadHDR(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GMHDRLoadHDR",
            display_name="Load HDR Image (EXR, Ultra HDR)",
            category="GM-HDR/loaders",
            description="Reads Ultra HDR, OpenEXR, Radiance, PNG, AVIF and JPEG XL as SDR and gain map.",
            inputs=[
                file_input(SUFFIXES),
                io.Combo.Input(
                    "convert_to",
                    options=[*PRIMARIES, "as in the file"],
                    default="bt709",
                    tooltip="Primaries of the outputs. The other HDR nodes expect bt709.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="hdr", tooltip=HDR_TOOLTIP),
                io.Image.Output(
                    display_name="sdr",
                    tooltip="The SDR picture in the file; without one, HDR cut at SDR white.",
                ),
                io.Image.Output(
                    display_name="gain_map",
                    tooltip="Gain map of Eq. (1): HDR Merge of sdr, gain_map and qmax is hdr, but for "
                    "colours outside the primaries (negative values), which become 0.",
                ),
                io.Float.Output(display_name="qmax", tooltip="What gain_map is scaled by, for HDR Merge."),
                io.Mask.Output(display_name="mask", tooltip="1 where the file is transparent."),
            ],
        )

    @classmethod
    @checked
    def execute(cls, image: str, convert_to: str) -> io.NodeOutput:
        picture = read_image(input_path(image))
        target = picture.primaries if convert_to not in PRIMARIES else convert_to
        hdr = convert_primaries(to_bchw_array(convertible(picture, target)), picture.primaries, target)
        sdr = sdr_of(picture, hdr, convert_to)
        spec = fitting_spec(sdr=sdr, hdr=hdr)
        gain_map = extract_gain_map(sdr=sdr, hdr=hdr, spec=spec, darken=True)
        alpha = np.ones(picture.hdr.shape[:2], np.float32) if picture.alpha is None else picture.alpha
        mask = 1.0 - torch.from_numpy(np.ascontiguousarray(alpha, dtype=np.float32))[None]
        return io.NodeOutput(to_image(hdr), to_image(sdr), to_image(gain_map), spec.qmax, mask)

    @classmethod
    def validate_inputs(cls, image: str | None) -> bool | str:
        return why_unreadable(image)

    @classmethod
    def fingerprint_inputs(cls, image: str | None, convert_to: str) -> str | float:
        return input_fingerprint(image, convert_to)


def convertible(picture: HDRImage, primaries: str) -> np.ndarray:
    """The HDR picture; if its primaries have to change, with NaN as 0 and infinite values as its peak, which
    a matrix would spread over all channels."""
    if picture.primaries == primaries:
        return picture.hdr
    clean, counts = sanitize(picture.hdr, keep_negative=True)
    if counts.total:
        log.warning("Before its primaries were converted, the picture had: %s", counts)
    return clean


def sdr_of(picture: HDRImage, hdr: torch.Tensor, convert_to: str) -> torch.Tensor:
    """The file's own SDR picture, or the HDR picture cut at SDR white; [1,3,H,W] sRGB-encoded."""
    if picture.sdr is None:
        return linear_to_srgb(hdr.clamp(0.0, 1.0))
    sdr = to_bchw_array(picture.sdr)
    if convert_to not in PRIMARIES:
        return sdr
    # A layer of an OpenEXR file is ComfyUI's SDR picture, whatever the primaries of the HDR beside it.
    source = "bt709" if picture.metadata["format"] == "exr" else picture.primaries
    return convert_sdr(sdr, source, convert_to)


NODES: list[type[io.ComfyNode]] = [LoadHDR]
