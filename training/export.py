"""`python -m training export`: files that the ComfyUI nodes, ComfyUI itself and diffusers load."""

from __future__ import annotations

import datetime
import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from gm_core import unet_keys, vae_keys
from gm_core.errors import ModelFileError
from gm_core.model_info import SIGMOID_OUTPUT, TEXT_CONTEXT_KEY, VAE_OUTPUT_KEY, GainMapModelInfo
from training.base_model import load_vae
from training.config import ExportConfig
from training.gm_unet import TEXT_CONTEXT, WEIGHTS, find_weights, read_gm_unet, stated_architecture
from training.stage1.adapter import (
    PREFIX,
    find_adapter,
    merge_adapter,
    read_adapter,
    stated_info,
    stated_scale,
)
from training.tensor_files import save_whole

logger = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
# colour primaries, transfer, matrix, full range of the HDR (ITU-T H.273): linear light.
CICP = {"bt2020": "cicp:9,8,0,1", "bt709": "cicp:1,8,0,1"}


def run(config: ExportConfig) -> None:
    """Write what the configuration names."""
    output = Path(config.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    config.save(output / "config.yaml")
    written = []
    if config.stage2:
        written += export_gm_unet(config, output)
    if config.stage1:
        written += export_vae(config, output)
    for path in written:
        logger.info("wrote %s (%.1f MiB)", path, path.stat().st_size / 2**20)


def export_gm_unet(config: ExportConfig, output: Path) -> list[Path]:
    """`gm_unet.safetensors` for the loader node, and a diffusers folder `unet/`.

    The single file has LDM names, the paper's input order, the text context and all metadata.

    Raises: ModelFileError when there is no GM UNet or it does not survive the dtype.
    """
    assert config.stage2 is not None
    source = find_weights(Path(config.stage2), prefer_average=config.use_ema)
    weights, info, context = read_gm_unet(source)
    single = cast(unet_keys.to_ldm(weights), DTYPES[config.dtype])
    path = output / "gm_unet.safetensors"
    described = {**info.to_metadata(), **modelspec(config, single, "gain-map-unet", info)}
    text = {} if context is None else {TEXT_CONTEXT_KEY: context}
    save_whole({**single, **text}, path, described)
    folder = output / "unet"
    folder.mkdir(exist_ok=True)
    diffusers = cast(weights, DTYPES[config.dtype])
    save_whole(diffusers, folder / WEIGHTS, {"format": "pt", **info.to_metadata()})
    if text:
        save_whole(text, folder / TEXT_CONTEXT, {})
    if stated_architecture(source) is not None:
        (folder / "config.json").write_bytes((source.parent / "config.json").read_bytes())
    return [path, folder / WEIGHTS]


def export_vae(config: ExportConfig, output: Path) -> list[Path]:
    """`gm_vae.safetensors` (merged, LDM names), `gm_vae_lora.safetensors`, and a diffusers folder `vae/`."""
    assert config.stage1 is not None and config.pretrained_model_name_or_path is not None
    file = find_adapter(Path(config.stage1), prefer_average=config.use_ema)
    vae = load_vae(config.pretrained_model_name_or_path)
    adapter = read_adapter(file, vae.state_dict())
    merged = merge_adapter(vae, file)
    weights = cast(vae_keys.to_ldm(merged.state_dict()), DTYPES[config.dtype])
    learned = stated_info(file)
    meaning = {**(learned.to_metadata() if learned else {}), VAE_OUTPUT_KEY: SIGMOID_OUTPUT}
    described = {**modelspec(config, weights, "gain-map-vae", None), **meaning}
    save_whole(weights, output / "gm_vae.safetensors", described)
    lora = adapter | alphas(adapter, stated_scale(file))
    lora_described = {**modelspec(config, lora, "gain-map-vae/lora", None), **meaning}
    save_whole(lora, output / "gm_vae_lora.safetensors", lora_described)
    merged.save_config(output / "vae")
    save_whole(cast(merged.state_dict(), torch.float32), output / "vae" / WEIGHTS, {"format": "pt"})
    return [output / "gm_vae.safetensors", output / "gm_vae_lora.safetensors"]


def alphas(adapter: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """One explicit `.alpha` per layer that has none, so that no reader has to know alpha / r."""
    suffix = ".lora_A.weight"
    downs = {name.removesuffix(suffix): down for name, down in adapter.items() if name.endswith(suffix)}
    return {
        f"{PREFIX}{layer.removeprefix(PREFIX)}.alpha": torch.tensor(scale * down.shape[0])
        for layer, down in downs.items()
        if f"{layer}.alpha" not in adapter
    }


def cast(weights: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Contiguous copies in `dtype`. Raises: ModelFileError when a value overflows or is not finite."""
    converted = {name: value.to(dtype).contiguous() for name, value in weights.items()}
    for name, value in converted.items():
        if not torch.isfinite(value).all():
            raise ModelFileError(
                f"{name} is not finite in {dtype}; export float32, or check the training run"
            )
    return converted


def modelspec(
    config: ExportConfig, weights: Mapping[str, Tensor], kind: str, info: GainMapModelInfo | None
) -> dict[str, str]:
    """Metadata by the ModelSpec 1.0.1 convention; empty entries are left out."""
    entries = {
        "sai_model_spec": "1.0.1",
        "architecture": f"stable-diffusion-v1/{kind}",
        "implementation": "https://github.com/Stability-AI/ModelSpec",
        "title": config.title,
        "author": config.author,
        "license": config.license,
        "date": datetime.date.today().isoformat(),
        "hash_sha256": f"0x{tensor_hash(weights)}",
    }
    if info is not None:
        prediction = {"eps": "epsilon", "v": "v", "x0": "sample"}[info.prediction]
        side = str(info.working_side or 512)
        entries |= {
            "prediction_type": prediction,
            "resolution": f"{side}x{side}",
            "color_space": CICP[info.gamut],
            "description": f"SDR to gain-map latent, qmax {info.spec.qmax:g}, {info.coding.encoding} coding",
        }
    return {f"modelspec.{name}": value for name, value in entries.items() if value}


def tensor_hash(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 over names and bytes, in name order."""
    hasher = hashlib.sha256()
    for name in sorted(weights):
        hasher.update(name.encode())
        hasher.update(weights[name].contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return hasher.hexdigest()
