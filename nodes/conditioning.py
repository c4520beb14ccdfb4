"""ControlNet for two branches."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from .checking import checked
from .engine.conditioning import Conditioning, for_gain_map, with_control
from .tensors import bchw_view


def strength_inputs() -> list[io.Float.Input]:
    return [
        io.Float.Input(
            "strength",
            default=1.0,
            min=0.0,
            max=10.0,
            step=0.01,
            tooltip="How much it guides the SDR branch.",
        ),
        io.Float.Input(
            "gm_strength",
            default=0.0,
            min=0.0,
            max=10.0,
            step=0.01,
            tooltip="How much it guides the gain-map branch: 0 = not at all. Needs a full-size GM UNet.",
        ),
        io.Float.Input(
            "start_percent",
            default=0.0,
            min=0.0,
            max=1.0,
            step=0.001,
            tooltip="When it begins to act: 0 = with the first step, 0.5 = half way.",
        ),
        io.Float.Input(
            "end_percent",
            default=1.0,
            min=0.0,
            max=1.0,
            step=0.001,
            tooltip="When it stops: 1 = after the last step, 0.5 = half way.",
        ),
    ]


class ControlNetApply(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GMHDRControlNetApply",
            display_name="Apply ControlNet (GM)",
            category="GM-HDR/conditioning",
            description="Apply ControlNet with a strength of its own for the gain-map branch.",
            inputs=[
                io.Conditioning.Input("positive", tooltip="The positive prompt."),
                io.Conditioning.Input("negative", tooltip="The negative prompt."),
                io.ControlNet.Input("control_net", tooltip="A ControlNet for SD 1.5."),
                io.Image.Input("image", tooltip="The control picture: edges, depth, pose."),
                *strength_inputs(),
                io.Conditioning.Input(
                    "gm_positive",
                    optional=True,
                    tooltip="'gm_positive' of the ControlNet before this one in a chain. Without it: "
                    "'positive' without ControlNet and hooks.",
                ),
                io.Vae.Input("vae", optional=True, tooltip="Only for ControlNets that work on latents."),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive", tooltip="For the SDR branch."),
                io.Conditioning.Output(display_name="negative", tooltip="For the SDR branch."),
                io.Conditioning.Output(display_name="gm_positive", tooltip="For the gain-map branch."),
            ],
        )

    @classmethod
    @checked
    def execute(
        cls,
        positive: Conditioning,
        negative: Conditioning,
        control_net: Any,
        image: torch.Tensor,
        strength: float,
        gm_strength: float,
        start_percent: float,
        end_percent: float,
        gm_positive: Conditioning | None = None,
        vae: Any = None,
    ) -> io.NodeOutput:
        percent = (start_percent, end_percent)
        base = for_gain_map(positive) if gm_positive is None else gm_positive
        hint = bchw_view(image, "image")
        sdr = with_control(
            [positive, negative], control_net, hint, strength=strength, percent=percent, vae=vae
        )
        gain_map = with_control([base], control_net, hint, strength=gm_strength, percent=percent, vae=vae)
        return io.NodeOutput(*sdr, *gain_map)


NODES: list[type[io.ComfyNode]] = [ControlNetApply]
