"""Loading a gain-map UNet into ComfyUI's own model classes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import comfy.model_detection
import comfy.model_management
import comfy.model_sampling
import comfy.sd
import comfy.supported_models
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher

from ...gm_core import unet_keys
from ...gm_core.conditioning import condition_last
from ...gm_core.errors import GainMapError, ModelFileError
from ...gm_core.model_info import TEXT_CONTEXT_KEY, GainMapModelInfo
from ...gm_core.tone.net import ToneNet
from .model_file import StateDict, check_is_gm_unet, read_header, read_weights

log = logging.getLogger(__name__)

INFO_KEY = "gmhdr"
CONTEXT_KEY = "gmhdr_text_context"
TONE_KEY = "gmhdr_tone"
VAE_KEY = "gmhdr_vae"
"""The autoencoder that resizes latents for a model which works at a size of its own."""
DTYPES = {"default": None, "fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
PREDICTIONS = {"v": comfy.model_sampling.V_PREDICTION, "x0": comfy.model_sampling.X0}


def load_gm_unet(path: Path, weight_dtype: str = "default", **loading: bool) -> ModelPatcher:
    """GM UNet in LDM or diffusers names -> MODEL with a GainMapModelInfo attached.

    On disk the first conv takes [SDR, gain map] (the paper's order) unless the file says otherwise.

    Args:
        loading: what core tells its own loader when it loads a model again, such as disable_dynamic.

    Raises:
        ModelFileError: unreadable, another architecture, missing tensors, or wrong metadata.
    """
    shapes, metadata = read_header(path)
    check_is_gm_unet(shapes, path.name)
    try:
        info = GainMapModelInfo.from_metadata(metadata)
        weights = unet_keys.to_ldm(read_weights(path))
    except ModelFileError as error:
        raise ModelFileError(f"{path.name}: {error}") from error
    check_values(weights, path.name)
    context, tone_net = weights.pop(TEXT_CONTEXT_KEY, None), ToneNet.pop_from(weights, path.name)
    patcher = build(weights, metadata, DTYPES[weight_dtype], path.name, **loading)
    # How newer versions of core load it again, for LoRA hooks of a prompt and for other devices.
    patcher.cached_patcher_init = (load_gm_unet, (path, weight_dtype))  # pyright: ignore[reportAttributeAccessIssue]
    if info.input_order == "sdr_gm":
        take_condition_first(patcher)
    set_prediction(patcher, info.prediction)
    patcher.set_attachments(INFO_KEY, info)
    patcher.set_attachments(CONTEXT_KEY, check_context(context, patcher, path.name))
    patcher.set_attachments(TONE_KEY, tone_net)
    return patcher


def check_values(weights: StateDict, name: str) -> None:
    for key, tensor in weights.items():
        if not tensor.is_floating_point():
            raise ModelFileError(
                f"{name}: tensor {key} holds {tensor.dtype}, expected floating point. Quantised files "
                "cannot be read: export the model in fp16, bf16 or fp32."
            )
        if not torch.isfinite(tensor.float()).all():
            raise ModelFileError(
                f"{name}: tensor {key} contains NaN or infinite values; the file is damaged."
            )


def build(
    weights: StateDict, metadata: dict[str, str], dtype: torch.dtype | None, name: str, **loading: bool
) -> ModelPatcher:
    """Core's SD15_instructpix2pix around the weights; raises ModelFileError when they do not fit."""
    given = set(weights)
    config = comfy.model_detection.detect_unet_config(weights, "")
    try:
        if config is not None and comfy.supported_models.SD15_instructpix2pix.matches(config):
            options = {"dtype": dtype} if dtype else {}
            patcher = comfy.sd.load_diffusion_model_state_dict(
                weights, model_options=options, metadata=metadata, **loading
            )
        else:
            patcher = build_small(weights, config or {}, dtype)
    except (RuntimeError, KeyError, IndexError) as error:
        raise ModelFileError(f"{name}: the tensors do not fit an SD 1.5 UNet ({error}).") from error
    assert patcher is not None, "core gives None for what it cannot detect, and this was detected above"
    wanted = set(patcher.model.diffusion_model.state_dict())
    if wanted != given:
        raise ModelFileError(
            f"{name}: {len(wanted & given)} of {len(wanted)} tensors fit; missing {sample(wanted - given)}, "
            f"unexpected {sample(given - wanted)}. The file is incomplete or of another architecture."
        )
    check_linear_layers(patcher.model.diffusion_model, name)
    return patcher


def check_linear_layers(network: torch.nn.Module, name: str) -> None:
    """Raises ModelFileError for sizes that newer versions of core take over from the file unchecked."""
    for key, layer in network.named_modules():
        if not isinstance(layer, torch.nn.Linear):
            continue
        found, expected = list(layer.weight.shape), [layer.out_features, layer.in_features]
        if found != expected:
            raise ModelFileError(
                f"{name}: the tensors do not fit an SD 1.5 UNet ({key}.weight is {found}, not {expected})."
            )


def sample(names: set[str]) -> str:
    return ", ".join(sorted(names)[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") or "none"


def build_small(weights: StateDict, config: dict, dtype: torch.dtype | None) -> ModelPatcher:
    """What the stock loader does, for widths that its detection does not know."""
    model_config = comfy.supported_models.SD15_instructpix2pix(config)
    management = comfy.model_management
    device = management.get_torch_device()
    supported = model_config.supported_inference_dtypes
    if dtype is None:
        size, stored = comfy.utils.calculate_parameters(weights), comfy.utils.weight_dtype(weights)
        dtype = management.unet_dtype(
            model_params=size, supported_dtypes=list(supported), weight_dtype=stored
        )
    model_config.set_inference_dtype(dtype, management.unet_manual_cast(dtype, device, supported))
    offload_device = management.unet_offload_device()
    model = model_config.get_model(weights, "").to(offload_device)
    # Newer versions of core keep the precision of the file in linear layers, whatever they were told.
    model.load_model_weights({key: tensor.to(dtype) for key, tensor in weights.items()}, "")
    return ModelPatcher(model, load_device=device, offload_device=offload_device)


def set_prediction(patcher: ModelPatcher, prediction: str) -> None:
    """SD15_instructpix2pix predicts noise; files may say "v" or "x0"."""
    if prediction == "eps":
        return

    class ModelSampling(comfy.model_sampling.ModelSamplingDiscrete, PREDICTIONS[prediction]):
        pass

    patcher.add_object_patch("model_sampling", ModelSampling(patcher.model.model_config))


def take_condition_first(patcher: ModelPatcher) -> None:
    """ComfyUI appends the condition to the noisy gain map; here the first conv is handed it first.

    The weights keep the order of the file: LoRAs and merged models are made for that.
    """
    first: torch.nn.Module = patcher.model.diffusion_model.input_blocks[0][0]
    first.register_forward_pre_hook(lambda _, inputs: condition_last(inputs[0]))


def check_context(context: torch.Tensor | None, patcher: ModelPatcher, name: str) -> torch.Tensor | None:
    width = patcher.model.model_config.unet_config["context_dim"]
    if context is not None and (context.ndim != 3 or (context.shape[0], context.shape[2]) != (1, width)):
        raise ModelFileError(
            f"{name}: {TEXT_CONTEXT_KEY} is {list(context.shape)}; this UNet needs [1, tokens, {width}]."
        )
    return None if context is None else context.float()


def model_info(patcher: ModelPatcher) -> GainMapModelInfo:
    """What the model file says about its gain maps; raises GainMapError for any other MODEL."""
    info = patcher.get_attachment(INFO_KEY)
    if not isinstance(info, GainMapModelInfo):
        raise GainMapError("gm_model: this MODEL is not a gain-map UNet. Load it with 'Load GM UNet'.")
    return info


def gain_map_latent(patcher: ModelPatcher, samples: torch.Tensor) -> dict[str, Any]:
    """LATENT of a gain map [B,4,h,w], with what GM VAE Decode needs to know of the model that painted it."""
    return {"samples": samples, INFO_KEY: model_info(patcher), TONE_KEY: patcher.get_attachment(TONE_KEY)}


def mark_vae(vae: comfy.sd.VAE, patcher: ModelPatcher) -> None:
    """Lets a VAE tell GM VAE Decode of this model: core's Rebatch Latents and Load Latent keep no marks."""
    for key in (INFO_KEY, TONE_KEY):
        vae.patcher.set_attachments(key, patcher.get_attachment(key))


def painter_of(latent: Mapping[str, Any], vae: comfy.sd.VAE) -> tuple[GainMapModelInfo, ToneNet | None]:
    """The model that painted a gain-map latent and its tone net, as the latent says, or else the VAE.

    Where neither does, the paper's, with a line in the log.
    """
    if info := latent.get(INFO_KEY):
        return info, latent.get(TONE_KEY)
    patcher = getattr(vae, "patcher", None)
    if patcher is not None and (info := patcher.get_attachment(INFO_KEY)):
        return info, patcher.get_attachment(TONE_KEY)
    info = GainMapModelInfo()
    log.warning(
        "GM VAE Decode: samples does not say which model painted it and is taken for a gain map of the "
        "paper's, with qmax %g and %s. Nodes between sampler and decoder, such as Rebatch Latents, drop what "
        "the sampler said: connect vae of Load GM UNet, which says it too.",
        info.spec.qmax,
        info.gamut,
    )
    return info, None


def stored_context(patcher: ModelPatcher) -> list | None:
    """CONDITIONING from the text context in the model file, if it has one."""
    context = patcher.get_attachment(CONTEXT_KEY)
    return None if context is None else [[context, {}]]
