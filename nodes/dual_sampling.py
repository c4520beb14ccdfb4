"""Sampling an SDR picture and its gain map together."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .checking import checked
from .engine.conditioning import Conditioning
from .engine.dual import MODES
from .engine.latents import Latent, gain_map_pass, sample_like_ksampler, sample_with_guider
from .inputs import gain_map_latent_output, gm_model_input, sampler_inputs, seed_input

CONDITION_TOOLTIP = (
    "Which SDR picture the gain map follows. 'trajectory': the SDR picture as it is at the same step (the "
    "paper). 'final': the finished picture, in the model's own few steps. 'auto' follows model and schedule."
)


def gm_branch_inputs() -> list[io.Input]:
    return [
        io.Conditioning.Input(
            "gm_positive",
            optional=True,
            tooltip="Text for the gain-map branch. Without it the text in the model file is used, or else "
            "the positive prompt without ControlNet and hooks (GM Dual Sampler only).",
        ),
        io.Latent.Input(
            "gm_latent",
            optional=True,
            tooltip="A gain-map latent to continue: for denoise below 1, inpainting and staged sampling.",
        ),
        io.Combo.Input(
            "gm_condition", options=list(MODES), default="auto", optional=True, tooltip=CONDITION_TOOLTIP
        ),
    ]


def ksampler_inputs() -> list[io.Input]:
    return [
        seed_input("Starting noise, the same for both branches."),
        io.Int.Input("steps", default=30, min=1, max=10000, tooltip="Denoising steps."),
        io.Float.Input(
            "cfg",
            default=7.5,
            min=0.0,
            max=100.0,
            step=0.1,
            round=0.01,
            tooltip="Guidance of the SDR branch. The gain-map branch never uses it.",
        ),
        *sampler_inputs(),
        io.Float.Input(
            "denoise",
            default=1.0,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="Below 1 the SDR picture starts from latent_image, as in KSampler.",
        ),
    ]


class DualSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GMHDRDualSampler",
            display_name="GM Dual Sampler (Text to HDR)",
            category="GM-HDR/sampling",
            description="KSampler that also paints the gain map. The SDR picture is the one KSampler makes.",
            inputs=[
                io.Model.Input("model", tooltip="Any SD 1.5 model, with its LoRAs and patches."),
                gm_model_input(),
                io.Conditioning.Input("positive", tooltip="What the picture should show."),
                io.Conditioning.Input("negative", tooltip="What it should not show."),
                io.Latent.Input("latent_image", tooltip="Empty Latent Image; for denoise below 1 a picture."),
                *ksampler_inputs(),
                *gm_branch_inputs(),
            ],
            outputs=[
                io.Latent.Output(display_name="sdr", tooltip="The SDR picture: decode it with VAE Decode."),
                gain_map_latent_output(),
            ],
        )

    @classmethod
    @checked
    def execute(
        cls,
        model: Any,
        gm_model: Any,
        positive: Conditioning,
        negative: Conditioning,
        latent_image: Latent,
        gm_positive: Conditioning | None = None,
        gm_latent: Latent | None = None,
        gm_condition: str = "auto",
        **settings: Any,
    ) -> io.NodeOutput:
        gm_pass = gain_map_pass(gm_model, positive, gm_positive, gm_latent, latent_image, gm_condition)
        sdr, _, gain_map = sample_like_ksampler(
            model, gm_pass, latent_image, positive=positive, negative=negative, **settings
        )
        return io.NodeOutput(sdr, gain_map)


class DualSamplerAdvanced(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GMHDRDualSamplerAdvanced",
            display_name="GM Dual Sampler (Advanced)",
            category="GM-HDR/sampling",
            description="SamplerCustomAdvanced that also paints the gain map, with any guider and sampler.",
            inputs=[
                io.Noise.Input("noise", tooltip="The same noise starts both branches."),
                io.Guider.Input("guider", tooltip="Guides the SDR branch; any guider on an SD 1.5 model."),
                io.Sampler.Input(
                    "sampler",
                    tooltip="The sampling algorithm of the SDR branch, and of a gain map that follows its "
                    "trajectory.",
                ),
                io.Sigmas.Input(
                    "sigmas",
                    tooltip="Noise levels of the SDR branch, and of a gain map that follows its trajectory.",
                ),
                io.Latent.Input("latent_image", tooltip="Where the SDR branch starts."),
                gm_model_input(),
                *gm_branch_inputs(),
            ],
            outputs=[
                io.Latent.Output(display_name="sdr", tooltip="The SDR latent after the last sigma."),
                io.Latent.Output(display_name="sdr_denoised", tooltip="The last clean prediction of it."),
                gain_map_latent_output(),
            ],
        )

    @classmethod
    @checked
    def execute(
        cls,
        noise: Any,
        guider: Any,
        sampler: Any,
        sigmas: Any,
        latent_image: Latent,
        gm_model: Any,
        gm_positive: Conditioning | None = None,
        gm_latent: Latent | None = None,
        gm_condition: str = "auto",
    ) -> io.NodeOutput:
        gm_pass = gain_map_pass(gm_model, [], gm_positive, gm_latent, latent_image, gm_condition)
        return io.NodeOutput(*sample_with_guider(noise, guider, sampler, sigmas, latent_image, gm_pass))


NODES: list[type[io.ComfyNode]] = [DualSampler, DualSamplerAdvanced]
