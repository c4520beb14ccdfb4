"""Sampling gain maps."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from ..gm_core.model_info import DEFAULT_STEPS, LARGEST_OWN_SIDE
from ..gm_core.resample import LATENT_STRIDE, resize_to_working
from .batches import picture_by_picture
from .checking import checked
from .engine import vae as vae_engine
from .engine.conditioning import Conditioning, for_any_size, gain_map_text
from .engine.load import gain_map_latent, model_info
from .engine.lora import check_loras
from .engine.upconvert import sample_gain_map
from .inputs import gain_map_latent_output, gm_model_input, sampler_inputs, seed_input
from .tensors import bchw_view, to_sdr


def steps_input() -> io.Int.Input:
    return io.Int.Input(
        "steps",
        default=0,
        min=0,
        max=1000,
        tooltip=f"Denoising steps. 0 = what the model recommends, or {DEFAULT_STEPS} if it says nothing. "
        "More than it was trained for make a model worse; the built-in one was trained for 1.",
    )


def working_side_input() -> io.Int.Input:
    return io.Int.Input(
        "working_side",
        default=0,
        min=0,
        max=4096,
        step=8,
        tooltip="Short side in pixels at which the model works; GM VAE Decode brings the map back to full "
        f"size. 0 = the model's own (128 of the built-in one), or the picture's up to {LARGEST_OWN_SIDE} if "
        "it says nothing.",
    )


class UpconvertSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GMHDRUpconvertSampler",
            display_name="GM Sampler (SDR to HDR)",
            category="GM-HDR/sampling",
            description="Paints the gain map of a finished SDR picture. The picture itself is not changed.",
            inputs=[
                gm_model_input(),
                io.Vae.Input(
                    "vae", tooltip="Shows the SDR picture to the model. From Load GM UNet, or any SD 1.5 VAE."
                ),
                io.Image.Input("image", tooltip="The SDR picture or pictures. A batch may have any size."),
                seed_input("Starting noise, the same for every picture of a batch."),
                steps_input(),
                *sampler_inputs(),
                working_side_input(),
                io.Conditioning.Input(
                    "positive",
                    optional=True,
                    tooltip="Text for models trained with text: encode an empty prompt. "
                    "Without it the text stored in the model file is used.",
                ),
            ],
            outputs=[gain_map_latent_output()],
        )

    @classmethod
    @checked
    def execute(
        cls,
        gm_model: Any,
        vae: Any,
        image: torch.Tensor,
        seed: int,
        steps: int,
        sampler_name: str,
        scheduler: str,
        working_side: int,
        positive: Conditioning | None = None,
    ) -> io.NodeOutput:
        info = model_info(gm_model)
        check_loras(gm_model)
        text = gain_map_text(gm_model, positive, name="positive")
        sdr = bchw_view(image, "image")
        # Areas were drawn on the picture, not on the smaller one that the model works on.
        text = for_any_size(text, [length / LATENT_STRIDE for length in sdr.shape[-2:]])
        side = working_side or info.side_for(sdr.shape[-2], sdr.shape[-1])

        def small(picture: torch.Tensor) -> torch.Tensor:
            return resize_to_working(to_sdr(picture, "image"), side)

        latent = vae_engine.encode(vae, picture_by_picture(small, sdr))
        gain_map = sample_gain_map(
            gm_model,
            latent,
            text,
            seed=seed,
            steps=info.steps_for(steps),
            sampler_name=sampler_name,
            scheduler=scheduler,
        )
        return io.NodeOutput(gain_map_latent(gm_model, gain_map))


NODES: list[type[io.ComfyNode]] = [UpconvertSampler]
