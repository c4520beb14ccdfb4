"""Model files with random weights from fixed seeds: they show plumbing, not pictures.

Imported once ComfyUI is on the path.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.cldm.cldm
import comfy.model_detection
import comfy.model_patcher
import comfy.sd1_clip
import comfy.supported_models
import comfy.supported_models_base
import comfy.taesd.taesd
import torch
from safetensors.torch import save_file

SMALL = {
    "model_channels": 64,
    "channel_mult": [1, 2, 3],
    "num_res_blocks": [1, 1, 1],
    "transformer_depth": [0, 0, 1],
    "transformer_depth_output": [0, 0, 0, 0, 1, 1],
    "transformer_depth_middle": 1,
    "context_dim": 64,
}
FIXED = {
    "image_size": 32,
    "out_channels": 4,
    "use_spatial_transformer": True,
    "use_linear_in_transformer": False,
    "adm_in_channels": None,
    "use_temporal_attention": False,
    "use_checkpoint": False,
    "legacy": False,
}
TINY = {
    "model_channels": 64,
    "channel_mult": [1],
    "num_res_blocks": [1],
    "transformer_depth": [1],
    "transformer_depth_output": [1, 1],
    "transformer_depth_middle": 1,
    "context_dim": 64,
}
STOCK = {
    "model_channels": 320,
    "channel_mult": [1],
    "num_res_blocks": [1],
    "transformer_depth": [1],
    "transformer_depth_output": [1, 1],
    "transformer_depth_middle": 1,
    "context_dim": 768,
}
CLIP_CONFIG = {
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 2,
    "hidden_act": "quick_gelu",
    "max_position_embeddings": 77,
    "vocab_size": 49408,
    "projection_dim": 64,
    "bos_token_id": 0,
    "eos_token_id": 49407,
    "pad_token_id": 1,
    "layer_norm_eps": 1e-5,
    "layer_norm_epsilon": 1e-5,
    "model_type": "clip_text_model",
}
BUILT_IN_METADATA = {
    "gmhdr.qmax": "31",
    "gmhdr.encoding": "log2",
    "gmhdr.log2_min": "-3",
    "gmhdr.log2_max": "5",
    "gmhdr.gamut": "bt709",
    "gmhdr.prediction": "v",
    "gmhdr.steps": "2",
    "gmhdr.working_side": "64",
}


def random_like(tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    if tensor.ndim < 2:
        return torch.rand(tensor.shape, generator=generator) * 0.2 + 0.4
    return torch.randn(tensor.shape, generator=generator) / tensor[0].numel() ** 0.5


def unet(layout: dict[str, Any], *, in_channels: int = 8, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random UNet weights under LDM names, fp16, in ComfyUI's channel order or any other: they are random."""
    model_config = comfy.supported_models.SD15_instructpix2pix(
        {**layout, **FIXED, "in_channels": in_channels}
    )
    model_config.set_inference_dtype(torch.float32, None)
    generator = torch.Generator().manual_seed(seed)
    empty = model_config.get_model({}, "").diffusion_model.state_dict()
    return {name: random_like(tensor, generator).half() for name, tensor in empty.items()}


def tiny_vae(seed: int = 1) -> dict[str, torch.Tensor]:
    """Random TAESD weights in the SD 1.5 latent space."""
    generator = torch.Generator().manual_seed(seed)
    empty = comfy.taesd.taesd.TAESD(latent_channels=4).state_dict()
    weights = {name: random_like(tensor, generator) for name, tensor in empty.items()}
    return {**weights, "vae_scale": torch.tensor(0.18215), "vae_shift": torch.tensor(0.0)}


def save(weights: dict[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path, metadata=metadata)
    return path


def write_builtin(folder: Path) -> None:
    """What stands in for the weights that ship with the pack."""
    context = torch.randn(1, 1, 64, generator=torch.Generator().manual_seed(2))
    save(
        {**unet(TINY), "gmhdr.text_context": context},
        folder / "gm_unet_builtin.safetensors",
        BUILT_IN_METADATA,
    )
    save(tiny_vae(), folder / "gm_vae_builtin.safetensors")


def sdr_model(weights: dict[str, torch.Tensor] | None = None) -> Any:
    """A 4-channel SD 1.5 MODEL as a checkpoint loader returns it; random unless weights are given."""
    weights = dict(weights or unet(TINY, in_channels=4, seed=10))
    config = comfy.model_detection.detect_unet_config(weights, "")
    model_config = comfy.supported_models.SD15(config)
    model_config.set_inference_dtype(torch.float32, None)
    model = model_config.get_model(weights, "")
    model.load_model_weights(weights, "")
    device = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=device)


def prompt(seed: int, *, tokens: int = 5, width: int = 64, **extra: Any) -> list:
    """CONDITIONING as a text encoder returns it."""
    text = torch.randn(1, tokens, width, generator=torch.Generator().manual_seed(seed))
    return [[text, {"pooled_output": None, **extra}]]


def control_net(layout: dict[str, Any] = TINY, seed: int = 30) -> dict[str, torch.Tensor]:
    """Random ControlNet weights as ControlNetLoader reads them."""
    config = {k: v for k, v in {**layout, **FIXED}.items() if k != "out_channels"}
    empty = comfy.cldm.cldm.ControlNet(**config, in_channels=4, hint_channels=3, num_head_channels=64)
    generator = torch.Generator().manual_seed(seed)
    return {f"control_model.{k}": random_like(v, generator) for k, v in empty.state_dict().items()}


class TinyText(comfy.sd1_clip.SDClipModel):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "textmodel_json_config": CLIP_CONFIG})


class TinyTextEncoder(comfy.sd1_clip.SD1ClipModel):
    def __init__(self, device: Any = "cpu", dtype: Any = None, model_options: dict = {}) -> None:  # noqa: B006
        super().__init__(device, dtype, model_options, clip_name="l", clip_model=TinyText)


class TinyTokenizer(comfy.sd1_clip.SDTokenizer):
    def __init__(self, embedding_directory: Any = None, tokenizer_data: dict = {}) -> None:  # noqa: B006
        super().__init__(
            embedding_directory=embedding_directory, embedding_size=64, tokenizer_data=tokenizer_data
        )


class TinyTokenizers(comfy.sd1_clip.SD1Tokenizer):
    def __init__(self, embedding_directory: Any = None, tokenizer_data: dict = {}) -> None:  # noqa: B006
        super().__init__(embedding_directory, tokenizer_data, clip_name="l", tokenizer=TinyTokenizer)


class TinySD15(comfy.supported_models.SD15):
    """Lets the stock checkpoint loader accept a 64-channel SD 1.5."""

    unet_config = {**comfy.supported_models.SD15.unet_config, "model_channels": 64, "context_dim": 64}

    def clip_target(self, state_dict: dict = {}) -> Any:  # noqa: B006
        return comfy.supported_models_base.ClipTarget(TinyTokenizers, TinyTextEncoder)


def write_checkpoint(path: Path) -> None:
    """A full SD 1.5 checkpoint of 25 MB; call `accept_tiny_checkpoints` before loading it."""
    generator = torch.Generator().manual_seed(40)
    text = TinyTextEncoder(dtype=torch.float32).state_dict()
    weights = {f"model.diffusion_model.{k}": v for k, v in unet(TINY, in_channels=4, seed=10).items()}
    weights |= {
        k.replace("clip_l.", "cond_stage_model.", 1): random_like(v, generator) for k, v in text.items()
    }
    weights |= {f"first_stage_model.{k}": v for k, v in tiny_vae().items()}
    save({k: v.half() if v.is_floating_point() else v for k, v in weights.items()}, path)


def accept_tiny_checkpoints() -> None:
    """Test-only: adds TinySD15 to the families ComfyUI detects."""
    if not any(family.__name__ == "TinySD15" for family in comfy.supported_models.models):
        comfy.supported_models.models.append(TinySD15)
