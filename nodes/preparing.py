"""Preparing a VAE for gain maps."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

from ..gm_core.errors import GainMapError
from ..gm_core.model_info import SIGMOID_OUTPUT
from ..gm_core.vae_lora import adapter_settings
from .checking import checked
from .engine.model_file import SAFE_SUFFIXES
from .engine.stage1 import Adapter, prepare_vae
from .input_files import fingerprint

log = logging.getLogger(__name__)

NONE = "none"
EMA_SUFFIXES = (".pth", ".bin", ".pt")


def lora_names(suffixes: tuple[str, ...]) -> list[str]:
    """Files of ComfyUI's loras folder with one of these suffixes, after "none"."""
    found = folder_paths.get_filename_list("loras")
    return [NONE, *(name for name in found if name.lower().endswith(suffixes))]


def lora_path(name: str) -> Path | None:
    return None if name == NONE else Path(folder_paths.get_full_path_or_raise("loras", name))


def adapter_inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "lora_name",
            options=lora_names(SAFE_SUFFIXES),
            default=NONE,
            tooltip="Stage 1 adapter from models/loras: PEFT's adapter_model.safetensors or an exported one.",
        ),
        io.Combo.Input(
            "ema_name",
            options=lora_names(EMA_SUFFIXES),
            default=NONE,
            tooltip="gm_decoder_ema.pth of the same run, if you have it: it holds the trained last layer, "
            "which PEFT does not save. Read as plain tensors; no code in it is run.",
        ),
        io.Float.Input(
            "strength",
            default=1.0,
            min=-2.0,
            max=2.0,
            step=0.05,
            tooltip="Strength of the adapter; 1 = as trained.",
        ),
    ]


class PrepareVAE(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GMHDRPrepareVAE",
            display_name="Prepare GM VAE",
            category="GM-HDR/loaders",
            description="A copy of a VAE in fp32, with a Stage 1 adapter and its sigmoid where wanted.",
            inputs=[
                io.Vae.Input("vae", tooltip="The VAE of SD 1.5. It stays as it is."),
                *adapter_inputs(),
                io.Combo.Input(
                    "precision",
                    options=["fp32", "auto"],
                    default="fp32",
                    tooltip="16-bit decoding shows as bands of brightness. 'auto' lets ComfyUI choose.",
                ),
                io.Combo.Input(
                    "head",
                    options=["auto", SIGMOID_OUTPUT, "clamp"],
                    default="auto",
                    tooltip="What follows the decoder: a sigmoid in Stage 1 VAEs, a clamp in all others. "
                    "'auto' goes by the adapter; choose sigmoid for a merged Stage 1 VAE.",
                ),
            ],
            outputs=[io.Vae.Output(display_name="vae", tooltip="For GM VAE Decode and VAE Encode.")],
        )

    @classmethod
    @checked
    def execute(
        cls, vae: Any, lora_name: str, ema_name: str, strength: float, precision: str, head: str
    ) -> io.NodeOutput:
        lora, ema = lora_path(lora_name), lora_path(ema_name)
        if lora is None and ema is not None:
            raise GainMapError("ema_name: the file completes an adapter. Choose that adapter in lora_name.")
        adapter = None if lora is None else Adapter(lora, ema, strength)
        prepared, notes = prepare_vae(vae, adapter=adapter, head=head, fp32=precision == "fp32")
        for note in notes:
            log.warning(note)
        # An empty list takes away the notes of an earlier run.
        return io.NodeOutput(prepared, ui={"text": notes})

    @classmethod
    def fingerprint_inputs(cls, lora_name: str, ema_name: str, **_: Any) -> str:
        lora, ema = lora_path(lora_name), lora_path(ema_name)
        # The settings may come, change and go without the adapter.
        settings = [adapter_settings(lora)] if lora and adapter_settings(lora).is_file() else []
        return " ".join(fingerprint(path) for path in (lora, ema, *settings) if path is not None)


NODES: list[type[io.ComfyNode]] = [PrepareVAE]
