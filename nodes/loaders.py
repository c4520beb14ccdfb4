"""Loading gain-map models."""

from __future__ import annotations

from pathlib import Path

import folder_paths
from comfy_api.latest import io

from ..gm_core.shipped import UNET_FILE, VAE_FILE
from .checking import checked
from .engine.builtin import weights_file
from .engine.load import DTYPES, VAE_KEY, load_gm_unet, mark_vae
from .engine.model_file import SAFE_SUFFIXES
from .engine.vae import load_vae
from .input_files import fingerprint

BUILT_IN = "built-in default"


def unet_path(name: str) -> Path:
    if name == BUILT_IN:
        return weights_file(UNET_FILE)
    return Path(folder_paths.get_full_path_or_raise("diffusion_models", name))


def unet_names() -> list[str]:
    """The built-in model, and every safetensors file in ComfyUI's diffusion_models."""
    found = folder_paths.get_filename_list("diffusion_models")
    return [BUILT_IN, *(name for name in found if name.lower().endswith(SAFE_SUFFIXES))]


class LoadGMUNet(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GMHDRLoadUNet",
            display_name="Load GM UNet",
            category="GM-HDR/loaders",
            description="Loads a model that paints the gain map of an SDR picture; one is built in.",
            inputs=[
                io.Combo.Input(
                    "unet_name",
                    options=unet_names(),
                    default=BUILT_IN,
                    tooltip="The model that ships with this pack, or an 8-channel SD 1.5 UNet from "
                    "models/diffusion_models (diffusers or LDM names, safetensors).",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(DTYPES),
                    default="default",
                    tooltip="Precision of the weights. 'default' lets ComfyUI choose for your device.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    display_name="gm_model", tooltip="The gain-map UNet, for the GM samplers only."
                ),
                io.Vae.Output(
                    display_name="vae",
                    tooltip="The tiny autoencoder of this pack, in fp32. Any SD 1.5 VAE can take its place.",
                ),
            ],
        )

    @classmethod
    @checked
    def execute(cls, unet_name: str, weight_dtype: str) -> io.NodeOutput:
        unet = load_gm_unet(unet_path(unet_name), weight_dtype)
        vae = load_vae(weights_file(VAE_FILE))
        unet.set_attachments(VAE_KEY, vae)
        mark_vae(vae, unet)
        return io.NodeOutput(unet, vae)

    @classmethod
    def fingerprint_inputs(cls, unet_name: str, weight_dtype: str) -> str:
        return f"{fingerprint(unet_path(unet_name))} {weight_dtype}"


NODES: list[type[io.ComfyNode]] = [LoadGMUNet]
