"""LoRAs on the gain-map UNet: core writes those that do not fit into its log and samples without them."""

from __future__ import annotations

import math
from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy.weight_adapter import LoRAAdapter

from ...gm_core.errors import GainMapError


def check_loras(gm_model: ModelPatcher) -> None:
    """Raises GainMapError when a LoRA changes tensors of another size than this UNet has."""
    weights = gm_model.model.state_dict()
    changes = [(key, change) for key, patches in gm_model.patches.items() for _, change, *_ in patches]
    misfits = [
        f"{key} is {shape} in the LoRA and {list(weights[key].shape)} in this UNet"
        for key, change in changes
        if (shape := shape_of(change)) and math.prod(shape) != weights[key].numel()
    ]
    if misfits:
        raise GainMapError(
            f"gm_model: a LoRA was made for another model, {len(misfits)} of {len(changes)} tensors do not "
            f"fit: {misfits[0]}. Connect LoRAs of SD 1.5 to 'model', and to gm_model only those that were "
            "trained on this gain-map UNet."
        )


def shape_of(change: Any) -> list[int]:
    """Shape of the tensor that a LoRA or a whole difference adds; empty for changes of any other kind."""
    if isinstance(change, LoRAAdapter):
        up, down, _, middle, _, reshape = change.weights
        return [] if middle is not None or reshape is not None else [up.shape[0], *down.shape[1:]]
    if isinstance(change, tuple) and change[0] == "diff" and len(change[1]) == 1:
        return list(change[1][0].shape)
    return []
