"""What PNG, AVIF and HDR10 video share: BT.2020 in cd/m2 with the PQ curve, up to 10000 nits."""

from __future__ import annotations

import numpy as np
import torch
from comfy_api.latest import io

from ..gm_core.color import PQ_PEAK_NITS, convert_primaries
from .inputs import primaries_input, white_input
from .saving import cleaned


def pq_inputs() -> list[io.Input]:
    return [
        primaries_input("Primaries of the HDR picture; the file is bt2020."),
        white_input(
            "Luminance of SDR white in the file: PQ codes are absolute. 203 is what BT.2408 and browsers "
            "take as SDR white."
        ),
    ]


def pq_picture(picture: torch.Tensor, primaries: str, white_nits: float) -> tuple[np.ndarray, str]:
    """A picture [3,H,W] as linear BT.2020 that PQ can hold, and what was replaced in it."""
    finite, broken = cleaned(picture, keep_negative=True)
    linear = convert_primaries(torch.from_numpy(finite).movedim(-1, 0)[None], primaries, "bt2020")[0]
    clean, outside = cleaned(linear)
    too_bright = int(np.count_nonzero(clean > PQ_PEAK_NITS / white_nits))
    above = f"{too_bright} above {PQ_PEAK_NITS:.0f} nits -> {PQ_PEAK_NITS:.0f}" if too_bright else ""
    return clean, ", ".join(found for found in (broken, outside, above) if found)
