"""Widgets that several nodes share, with their tooltips."""

from __future__ import annotations

from comfy_api.latest import io

from ..gm_core.color import PRIMARIES
from .engine.host import sampler_names, scheduler_names

COMBO = io.Custom("COMBO")
LARGEST_SEED = 0xFFFFFFFFFFFFFFFF

HDR_TOOLTIP = "HDR picture: linear light, 1.0 = SDR white, not clipped."
GAIN_MAP_TOOLTIP = "Gain map of Eq. (1): 0 = no gain, 1 = qmax, below 0 = darker."


def primaries_input(tooltip: str, name: str = "primaries") -> io.Combo.Input:
    return io.Combo.Input(name, options=list(PRIMARIES), default="bt709", tooltip=tooltip)


def qmax_input(source: str = "Connect 'qmax' of GM VAE Decode.", optional: bool = False) -> io.Float.Input:
    return io.Float.Input(
        "qmax",
        optional=optional,
        default=99.0,
        min=0.01,
        max=65535.0,
        step=0.1,
        tooltip=f"Gain added where the gain map is white: 99 makes white 100 times brighter. {source}",
    )


def gm_model_input() -> io.Model.Input:
    return io.Model.Input("gm_model", tooltip="From Load GM UNet.")


def gain_map_latent_output() -> io.Latent.Output:
    return io.Latent.Output(display_name="gain_map", tooltip="Decode it with GM VAE Decode.")


def prefix_input() -> io.String.Input:
    return io.String.Input(
        "filename_prefix",
        default="hdr/ComfyUI",
        tooltip="Folder and beginning of the file name inside ComfyUI's output folder; a number is added. "
        "%width%, %height%, %year%, %month%, %day%, %hour%, %minute%, %second% and, in the file name, "
        "%batch_num% are filled in; ComfyUI's %date:...% and %Node.widget% are not.",
    )


def white_input(tooltip: str) -> io.Float.Input:
    return io.Float.Input("white_nits", default=203.0, min=1.0, max=10000.0, step=1.0, tooltip=tooltip)


def seed_input(tooltip: str) -> io.Int.Input:
    return io.Int.Input(
        "seed", default=0, min=0, max=LARGEST_SEED, control_after_generate=True, tooltip=tooltip
    )


def sampler_inputs() -> list[io.Combo.Input]:
    return [
        io.Combo.Input(
            "sampler_name", options=sampler_names(), default="euler", tooltip="The sampling algorithm."
        ),
        io.Combo.Input(
            "scheduler", options=scheduler_names(), default="normal", tooltip="How noise levels are spaced."
        ),
    ]
