"""How bright an HDR picture is."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch

from gm_core.codecs.exr import decode_exr
from gm_core.color import luminance

WHITE_NITS = 203.0


def read_exr(path: Path) -> np.ndarray:
    """[H,W,3] linear BT.709, 1.0 = SDR white."""
    return decode_exr(path.read_bytes()).hdr


def brightness(hdr: np.ndarray) -> str:
    """The highest luminance of a picture [H,W,3], linear BT.709, 1.0 = SDR white, in words."""
    peak = float(luminance(torch.from_numpy(hdr).movedim(-1, 0)[None]).max())
    return f"peak {peak * WHITE_NITS:.0f} nits, {math.log2(max(peak, 1.0)):.1f} stops above SDR white"
