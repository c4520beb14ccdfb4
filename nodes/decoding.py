"""From a gain-map latent to a gain map."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from ..gm_core.model_info import GainMapModelInfo
from ..gm_core.tone.apply import finished_gain_map
from ..gm_core.tone.film import steadied
from ..gm_core.tone.net import ToneNet
from ..gm_core.tone.reading import ToneReading, read_tones
from .batches import picture_by_picture, pictures_of
from .checking import checked
from .engine import vae as vae_engine
from .engine.load import painter_of
from .inputs import COMBO, GAIN_MAP_TOOLTIP
from .tensors import bchw_view, same_batch, to_image, to_sdr


def tile_inputs() -> list[io.Int.Input]:
    return [
        io.Int.Input(
            "tile_size",
            default=0,
            min=0,
            max=4096,
            step=64,
            tooltip="Decode in tiles of this many pixels to save memory. 0 = the whole picture at once; "
            "1 to 383 count as 384.",
        ),
        io.Int.Input(
            "overlap",
            default=64,
            min=0,
            max=1024,
            step=8,
            tooltip="Pixels over which neighbouring tiles fade into each other. "
            "Raise it if tiles differ in brightness.",
        ),
    ]


def film_readings(
    coded: torch.Tensor, guide: torch.Tensor, *, info: GainMapModelInfo, net: ToneNet
) -> list[ToneReading]:
    """Of the frames [B,3,H,W] of a film and the small maps [B,3,h,w] painted of them."""
    frames = ((small, to_sdr(sdr, "guide")) for small, sdr in pictures_of(coded, guide))
    return steadied([read_tones(*frame, coding=info.coding, net=net) for frame in frames])


class GainMapDecode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GMHDRDecode",
            display_name="GM VAE Decode",
            category="GM-HDR/latent",
            description="Decodes a gain-map latent in fp32: 16-bit decoding shows as bands of brightness.",
            inputs=[
                io.Latent.Input("samples", tooltip="The gain-map latent of a GM sampler."),
                io.Vae.Input(
                    "vae", tooltip="From Load GM UNet, or any SD 1.5 VAE; 16-bit ones are copied to fp32."
                ),
                *tile_inputs(),
                io.Image.Input(
                    "guide",
                    optional=True,
                    tooltip="The SDR picture. The gain map is brought to its size, following its edges. "
                    "Without it the map stays as small as the model works.",
                ),
                io.Float.Input(
                    "tone_correction",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    optional=True,
                    tooltip="How far the map's tones are moved to the curve that the guide's own pixels tell "
                    "of. Only models with a tone net, such as the built-in one, can do this; 0 = off.",
                ),
                io.Boolean.Input(
                    "film",
                    default=False,
                    optional=True,
                    tooltip="On for the frames of a film: tone correction treats alike what looks alike, so "
                    "that lamps do not flicker. Cuts are noticed. Off: each picture by itself.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="gain_map", tooltip=GAIN_MAP_TOOLTIP),
                io.Float.Output(display_name="qmax", tooltip="The qmax the model was trained for."),
                COMBO.Output(display_name="primaries", tooltip="The primaries the model's HDR is in."),
            ],
        )

    @classmethod
    @checked
    def execute(
        cls,
        samples: dict,
        vae: Any,
        tile_size: int,
        overlap: int,
        guide: torch.Tensor | None = None,
        tone_correction: float = 1.0,
        film: bool = False,
    ) -> io.NodeOutput:
        info, net = painter_of(samples, vae)
        coded = vae_engine.decode(vae, samples["samples"], tile_size=tile_size, overlap=overlap)
        if guide is not None:
            pictures = same_batch(samples=coded, guide=bchw_view(guide, "guide"))
            readings = iter(())
            if film and net is not None and tone_correction > 0:
                readings = iter(film_readings(*pictures, info=info, net=net))

            def finished(small: torch.Tensor, sdr: torch.Tensor) -> torch.Tensor:
                reading, shown = next(readings, None), to_sdr(sdr, "guide")
                return finished_gain_map(
                    small, shown, info, net=net, strength=tone_correction, reading=reading
                )

            gain_map = picture_by_picture(finished, *pictures)
        else:
            gain_map = to_image(info.coding.to_gain_map(coded, spec=info.spec))
        return io.NodeOutput(gain_map, info.spec.qmax, info.gamut)


NODES: list[type[io.ComfyNode]] = [GainMapDecode]
