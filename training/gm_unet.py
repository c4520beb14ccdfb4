"""The gain-map UNet: made from a text-to-image UNet, saved, and found again in whatever a user points at."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from gm_core.errors import ModelFileError
from gm_core.json_files import read_json
from gm_core.model_info import TEXT_CONTEXT_KEY, GainMapModelInfo
from gm_core.unet_keys import swap_condition_first, to_diffusers, widen_conv_in
from training.checkpoint import CheckpointStore
from training.tensor_files import read_tensors, save_tensors

logger = logging.getLogger(__name__)

WEIGHTS = "diffusion_pytorch_model.safetensors"
TEXT_CONTEXT = "text_context.safetensors"
LATENT_CHANNELS = 4


@dataclass(frozen=True)
class LoadedGMUNet:
    """A GM UNet ready for use. `text_context` [1,tokens,width] is set where the file has one."""

    unet: UNet2DConditionModel
    info: GainMapModelInfo
    text_context: Tensor | None


def widen(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """Give a 4-channel UNet an 8-channel input, in place.

    Both halves start as half of the old weight: UNet8(concat[z, z]) equals UNet4(z).
    """
    old: Any = unet.conv_in
    new = nn.Conv2d(2 * LATENT_CHANNELS, old.out_channels, old.kernel_size, padding=old.padding)
    with torch.no_grad():
        new.weight.copy_(widen_conv_in(old.weight))
        new.bias.copy_(old.bias)  # type: ignore[union-attr]  # Stable Diffusion's has a bias
    unet.conv_in = new.to(old.weight)
    unet.register_to_config(in_channels=2 * LATENT_CHANNELS)
    return unet


def save_gm_unet(
    weights: Mapping[str, Tensor],
    unet: UNet2DConditionModel,
    info: GainMapModelInfo,
    context: Tensor,
    folder: Path,
) -> None:
    """Write a diffusers UNet folder whose weights file also says what the gain maps mean."""
    folder.mkdir(parents=True, exist_ok=True)
    unet.save_config(folder)
    tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    save_tensors(tensors, folder / WEIGHTS, metadata={"format": "pt", **info.to_metadata()})
    # Beside the weights, not among them: diffusers refuses keys it does not know.
    save_tensors({TEXT_CONTEXT_KEY: context.cpu().contiguous()}, folder / TEXT_CONTEXT)


def load_gm_unet(path: str, base_config: Mapping[str, Any], *, prefer_average: bool = True) -> LoadedGMUNet:
    """Load a GM UNet from a file, a UNet folder, a checkpoint, a pipeline or a run's output folder.

    A `config.json` is believed only when it describes a UNet (checkpoints of the original code hold the text
    encoder's there); otherwise the architecture is `base_config` with 8 input channels. Nothing is written.

    Raises: ModelFileError when there is no such file or its tensors fit neither description.
    """
    file = find_weights(Path(path), prefer_average=prefer_average)
    tensors, info, context = read_gm_unet(file)
    unet = _build(_config(file, base_config), tensors, file)
    return LoadedGMUNet(unet, info, context)


def read_gm_unet(file: Path) -> tuple[dict[str, Tensor], GainMapModelInfo, Tensor | None]:
    """Weights with diffusers names in the paper's input order, what the gain maps mean, and the text context
    [1,tokens,width] that is in the file or, in a UNet folder, beside it. Raises: ModelFileError.
    """
    tensors, metadata = read_tensors(file)
    info = GainMapModelInfo.from_metadata(metadata)
    context = tensors.pop(TEXT_CONTEXT_KEY, None)
    beside = file.parent / TEXT_CONTEXT
    if context is None and file.name == WEIGHTS and beside.is_file():
        context = _text_context(beside)
    tensors = to_diffusers(tensors)
    stem = tensors.get("conv_in.weight")
    if stem is None or stem.shape[1] != 2 * LATENT_CHANNELS:
        found = "nothing" if stem is None else list(stem.shape)
        raise ModelFileError(
            f"{file} is no GM UNet: conv_in.weight is {found}, expected {2 * LATENT_CHANNELS} input channels"
        )
    if info.input_order == "gm_sdr":
        tensors, info = swap_condition_first(tensors), replace(info, input_order="sdr_gm")
    return tensors, info, context


def find_weights(path: Path, *, prefer_average: bool = True) -> Path:
    """The weights file that a user's path means; averaged weights first. Raises: ModelFileError."""
    if path.is_file():
        if path.suffix not in (".safetensors", ".sft"):
            raise ModelFileError(
                f"{path} is not a .safetensors file; other formats can hold code and are not opened"
            )
        return path
    if not path.is_dir():
        raise ModelFileError(f"{path} does not exist; expected a GM UNet file, a UNet folder or a checkpoint")
    newest = CheckpointStore(path).latest()
    names = ["unet_ema", "unet"] if prefer_average else ["unet"]
    folders = [path, *(root / name for root in (path, newest) if root is not None for name in names)]
    for folder in folders:
        if (folder / WEIGHTS).is_file():
            return folder / WEIGHTS
    raise ModelFileError(f"no {WEIGHTS} in {path}, its unet folder, or its checkpoints")


def stated_architecture(file: Path) -> dict[str, Any] | None:
    """The `config.json` beside a weights file; None where there is none or, as in checkpoints of the original
    code, that of something else. Raises: ModelFileError when it is damaged.
    """
    beside = file.parent / "config.json"
    if not beside.is_file() or file.name != WEIGHTS:
        return None
    config = read_json(beside, remedy="copy it again, or remove it to take the base model's architecture")
    if config.get("_class_name") == "UNet2DConditionModel":
        return config
    logger.warning("%s does not describe a UNet; it is left out of account", beside)
    return None


def _text_context(file: Path) -> Tensor:
    tensors, _ = read_tensors(file)
    if TEXT_CONTEXT_KEY not in tensors:
        raise ModelFileError(
            f"{file} has no tensor {TEXT_CONTEXT_KEY}; copy it again, or remove it to take a prompt's context"
        )
    return tensors[TEXT_CONTEXT_KEY]


def _config(file: Path, base_config: Mapping[str, Any]) -> dict[str, Any]:
    return stated_architecture(file) or {**base_config, "in_channels": 2 * LATENT_CHANNELS}


def _build(config: dict[str, Any], tensors: dict[str, Tensor], file: Path) -> UNet2DConditionModel:
    with torch.device("meta"):
        unet: Any = UNet2DConditionModel.from_config(config)
    expected = {name: tuple(value.shape) for name, value in unet.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    if expected != found:
        wrong = sorted(
            name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)
        )
        name = wrong[0]
        raise ModelFileError(
            f"{file} does not fit the architecture: {len(wrong)} tensors differ, first {name}: "
            f"found {found.get(name, 'nothing')}, expected {expected.get(name, 'nothing')}; "
            "is it a GM UNet of the same base model?"
        )
    unet.load_state_dict({name: value.float() for name, value in tensors.items()}, assign=True)
    return unet.eval()
