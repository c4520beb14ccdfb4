"""HDR10 video from a batch of HDR pictures."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction
from typing import BinaryIO

import numpy as np
import torch
from comfy_api.latest import io

from ..gm_core.codecs.video import encode_hdr10, is_metadata_name
from ..gm_core.errors import ImageWriteError
from .checking import checked
from .engine.host import check_interrupted, progress_bar
from .inputs import prefix_input
from .output_files import SavedFiles, destination, report, workflow_metadata
from .saving import HIDDEN
from .saving_pq import pq_inputs, pq_picture
from .tensors import size_of, to_bchw

log = logging.getLogger(__name__)

LARGEST_CRF = {"hevc": 51, "av1": 63}
# 23.976 and its kin are 24000/1001; a thousandth apart from the whole number, so half of that decides.
_NTSC_TOLERANCE = 0.0005


def frame_rate(fps: float) -> Fraction:
    """The exact rate that a rounded one stands for: 23.976 -> 24000/1001."""
    ntsc = Fraction(1000 * round(fps * 1.001), 1001)
    return ntsc if abs(ntsc / Fraction(fps) - 1) < _NTSC_TOLERANCE else Fraction(fps).limit_denominator(1000)


class Reel:
    """The batch as an encoder wants it: the same frames each time, one in memory at once.

    Raises ComfyUI's interrupt exception between two frames if the user pressed Cancel.
    """

    def __init__(self, hdr: torch.Tensor, primaries: str, white_nits: float) -> None:
        self.hdr = hdr
        self.primaries = primaries
        self.white_nits = white_nits
        self.bar = progress_bar(2 * len(hdr))
        self.replaced: dict[int, str] = {}

    def __call__(self) -> Iterator[np.ndarray]:
        for number in range(len(self.hdr)):
            check_interrupted()
            frame = to_bchw(self.hdr[number : number + 1], "hdr")[0]
            picture, replaced = pq_picture(frame, self.primaries, self.white_nits)
            if replaced:
                self.replaced[number] = replaced
            yield picture
            self.bar.update(1)

    def warnings(self) -> list[str]:
        return [f"frame {number}: {replaced}" for number, replaced in self.replaced.items()]


def format_inputs() -> list[io.Input]:
    return [
        io.Float.Input("fps", default=24.0, min=0.1, max=240.0, step=0.001, tooltip="Frames per second."),
        io.Combo.Input(
            "codec",
            options=list(LARGEST_CRF),
            default="hevc",
            tooltip="hevc plays on televisions, phones and Apple devices; av1 is free, for browsers.",
        ),
        io.Int.Input(
            "crf",
            default=14,
            min=0,
            max=63,
            tooltip="Lower is better and larger. 14 is visually lossless; hevc goes up to 51.",
        ),
    ]


class SaveVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GMHDRSaveVideo",
            display_name="Save HDR Video (HDR10)",
            category="GM-HDR/save",
            description="An MP4 in HDR10: 10 bits, BT.2020, PQ, with the light levels of its frames.",
            is_output_node=True,
            hidden=HIDDEN,
            inputs=[
                io.Image.Input(
                    "hdr", tooltip="The frames as a batch: linear light, 1.0 = SDR white, not clipped."
                ),
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
        fps: float,
        codec: str,
        crf: int,
        primaries: str,
        white_nits: float,
    ) -> io.NodeOutput:
        height, width = checked_size(hdr)
        if crf > LARGEST_CRF[codec]:
            raise ImageWriteError(f"crf is {crf}; {codec} takes 0 to {LARGEST_CRF[codec]}.")
        reel = Reel(hdr, primaries, white_nits)
        metadata = workflow_metadata(cls.hidden, is_metadata_name)

        def write(file: BinaryIO) -> None:
            encode_hdr10(
                file,
                reel,
                fps=frame_rate(fps),
                codec=codec,
                primaries="bt2020",
                white_nits=white_nits,
                crf=crf,
                metadata=metadata,
            )

        result = destination(filename_prefix, width, height).claim(0, ".mp4", write)
        for warning in reel.warnings():
            log.warning("%s: values the format cannot hold: %s", result.filename, warning)
        return report(SavedFiles([result], reel.warnings()), animated=True)


def checked_size(hdr: torch.Tensor) -> tuple[int, int]:
    """Height and width of the frames.

    Raises:
        GainMapError: not a picture batch.
        ImageWriteError: odd sides, which the colour format of HDR10 does not have.
    """
    first = to_bchw(hdr[:1], "hdr")
    height, width = first.shape[-2:]
    if height % 2 or width % 2:
        raise ImageWriteError(
            f"hdr is {size_of(first)}; HDR10 video needs an even width and height. Crop the pictures first."
        )
    return height, width


NODES: list[type[io.ComfyNode]] = [SaveVideo]
