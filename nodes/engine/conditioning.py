"""Text and ControlNet for the gain-map branch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from comfy.controlnet import ControlBase, ControlLora
from comfy.model_patcher import ModelPatcher

from ...gm_core.errors import GainMapError
from .load import stored_context

Conditioning = Sequence[list[Any]]

STOCK_CHANNELS = 320
SDR_ONLY = ("control", "control_apply_to_uncond", "gligen", "hooks")
"""What a prompt may carry for the SDR branch alone: a LoRA hook would patch tensors of the same name."""


def for_gain_map(positive: Conditioning) -> list[list[Any]]:
    """A prompt without what belongs to the SDR branch; areas, masks and percent ranges stay."""
    return [[text, {k: v for k, v in extra.items() if k not in SDR_ONLY}] for text, extra in positive]


def for_any_size(prompt: Conditioning, size: Sequence[float]) -> list[list[Any]]:
    """A prompt whose areas are made for latents of this height and width, with areas as shares of them."""

    def share(area: tuple) -> tuple:
        if area[0] == "percentage":
            return area
        return ("percentage", *(length / whole for length, whole in zip(area, [*size] * 2, strict=True)))

    return [
        [text, {**extra, "area": share(extra["area"])} if "area" in extra else extra]
        for text, extra in prompt
    ]


def gain_map_text(
    gm_model: ModelPatcher,
    own: Conditioning | None,
    positive: Conditioning = (),
    *,
    name: str = "gm_positive",
) -> Conditioning:
    """The prompt of the gain-map branch: what the user gave for it, what the model file holds, or `positive`.

    Raises:
        GainMapError: there is none, or it does not fit the model; the message calls the input `name`.
    """
    text = own or stored_context(gm_model) or for_gain_map(positive)
    if not text:
        raise GainMapError(
            f"{name}: this model holds no text of its own. Connect the prompt, or an empty prompt for SDR to "
            "HDR, encoded with the text encoder of SD 1.5."
        )
    config = gm_model.model.model_config.unet_config
    for tensor, extra in text:
        if tensor.shape[-1] != config["context_dim"]:
            raise GainMapError(
                f"{name}: the text is {tensor.shape[-1]} wide, this GM UNet takes {config['context_dim']}. "
                "Leave it unconnected if the model brings its own, or use the text encoder of its training."
            )
        if "control" in extra and config["model_channels"] != STOCK_CHANNELS:
            raise GainMapError(
                f"{name}: ControlNets of SD 1.5 fit full-size GM UNets only; set gm_strength to 0."
            )
        if any(isinstance(net, ControlLora) for net in chain_of(extra.get("control"))):
            raise GainMapError(
                f"{name}: a Control-LoRA takes most of its weights from the model it guides, and those of a "
                "gain-map UNet have 8 channels; set gm_strength to 0, or use a whole ControlNet."
            )
    return text


def chain_of(control: ControlBase | None) -> Iterator[ControlBase]:
    """A ControlNet and those before it."""
    while control is not None:
        yield control
        control = control.previous_controlnet


def with_control(
    conditionings: Sequence[Conditioning],
    control_net: Any,
    hint: torch.Tensor,
    *,
    strength: float,
    percent: tuple[float, float],
    vae: Any = None,
) -> list[Conditioning]:
    """Conditionings that are also guided by a ControlNet, which looks at `hint` [B,3,H,W].

    ControlNets already there stay in the chain. As in core's node, prompts with the same chain share one
    copy, so that they still run as one batch.
    """
    if strength == 0:
        return list(conditionings)
    chains: dict[Any, Any] = {}

    def chained(previous: Any) -> Any:
        if previous not in chains:
            copy = control_net.copy().set_cond_hint(hint, strength, percent, vae=vae)
            chains[previous] = copy.set_previous_controlnet(previous)
        return chains[previous]

    return [
        [
            [t, {**e, "control": chained(e.get("control")), "control_apply_to_uncond": False}]
            for t, e in prompt
        ]
        for prompt in conditionings
    ]
