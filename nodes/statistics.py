"""Is this really HDR? Numbers and a histogram."""

from __future__ import annotations

import torch
from comfy_api.latest import io, ui

from ..gm_core.statistics import HDRStatistics, hdr_statistics
from .checking import checked
from .histogram import histogram_picture
from .inputs import HDR_TOOLTIP, primaries_input, white_input
from .tensors import bchw_view


def statistics_outputs() -> list[io.Output]:
    return [
        io.String.Output(display_name="text", tooltip="All figures as text."),
        io.Image.Output(display_name="histogram", tooltip="Shares of the pixels by stops around SDR white."),
        io.Float.Output(display_name="peak_nits", tooltip="Luminance of the brightest pixel."),
        io.Float.Output(
            display_name="stops_above_white", tooltip="Stops between SDR white and the peak; 0 = SDR."
        ),
        io.Float.Output(
            display_name="share_above_white", tooltip="Part of the pixels above SDR white, 0 to 1."
        ),
    ]


class Statistics(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GMHDRStatistics",
            display_name="HDR Statistics",
            category="GM-HDR/image",
            description="Tells whether a picture is really HDR: nits, stops above SDR white, faulty pixels.",
            is_output_node=True,
            inputs=[
                io.Image.Input("hdr", tooltip=HDR_TOOLTIP + " A batch is measured as one."),
                primaries_input("Primaries of the HDR picture."),
                primaries_input("Colours outside this gamut are counted.", "gamut"),
                white_input("Luminance of SDR white. 203 is BT.2408's; the paper's figures use 100."),
            ],
            outputs=statistics_outputs(),
        )

    @classmethod
    @checked
    def execute(cls, hdr: torch.Tensor, primaries: str, gamut: str, white_nits: float) -> io.NodeOutput:
        found = hdr_statistics(bchw_view(hdr, "hdr"), primaries=primaries, gamut=gamut, white_nits=white_nits)
        text, histogram = as_text(found, gamut), histogram_picture(found)
        return io.NodeOutput(
            text,
            histogram,
            found.peak_nits,
            found.stops_above_white,
            found.share_above_white,
            ui=ui.PreviewImage(histogram).as_dict() | {"text": (text,)},
        )


def as_text(found: HDRStatistics, gamut: str) -> str:
    percentiles = ", ".join(f"{p:g} %: {nits:.4g}" for p, nits in found.percentile_nits.items())
    return "\n".join(
        [
            f"Peak {found.peak_nits:.4g} nits, average {found.average_nits:.4g} nits",
            f"Percentiles in nits: {percentiles}",
            f"{found.stops_above_white:.2f} stops above SDR white",
            f"{found.share_above_white:.2%} of the pixels above SDR white",
            f"{found.clipped_share:.2%} of the pixels at the ceiling",
            f"{found.out_of_gamut_share:.2%} of the pixels outside {gamut}",
            f"{found.nan} NaN, {found.infinite} infinite, {found.negative} negative values",
        ]
    )


NODES: list[type[io.ComfyNode]] = [Statistics]
