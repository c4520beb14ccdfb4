"""Chromaticities found in a file, and the named set they are or are converted to."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch

from ..color import PRIMARIES, bradford, rgb_to_xyz
from ..errors import ImageReadError

logger = logging.getLogger(__name__)

# Wide enough for every set in use; colours outside it stay as negative values.
FALLBACK = "bt2020"
_TOLERANCE = 0.002


def resolve_primaries(values: Sequence[float]) -> tuple[str, np.ndarray | None]:
    """The set that red, green, blue and white x, y (8 numbers) name, or BT.2020 and the [3,3] float32 matrix
    that converts to it. Some writers leave zeros: what is unusable counts as absent, which means BT.709."""
    for name, chroma in PRIMARIES.items():
        expected = [value for xy in chroma for value in xy]
        if len(values) == 8 and np.abs(np.subtract(values, expected)).max() < _TOLERANCE:
            return name, None
    try:
        return FALLBACK, _matrix_to_fallback(values)
    except ImageReadError as error:
        logger.info("%s; BT.709 is assumed", error)
        return "bt709", None


def rgb_to_xyz_of(values: Sequence[float]) -> np.ndarray:
    """[3,3] float64 linear RGB to XYZ, Y = 1 at white.

    Raises:
        ImageReadError: the eight numbers are no usable chromaticities.
    """
    points = np.asarray(values, np.float64).reshape(-1, 2)
    if points.shape != (4, 2) or not np.isfinite(points).all() or np.abs(points[:, 1]).min() < 1e-6:
        raise ImageReadError(f"the file's chromaticities {tuple(values)} are unusable")
    xyz = np.stack([points[:, 0] / points[:, 1], np.ones(4), (1 - points.sum(1)) / points[:, 1]])
    if abs(np.linalg.det(xyz[:, :3])) < 1e-6:
        raise ImageReadError(f"the file's chromaticities {tuple(values)} do not span a colour space")
    return xyz[:, :3] * np.linalg.solve(xyz[:, :3], xyz[:, 3])


def _matrix_to_fallback(values: Sequence[float]) -> np.ndarray:
    """[3,3] float32 linear RGB of these chromaticities to BT.2020, white adapted with Bradford."""
    source, target = torch.from_numpy(rgb_to_xyz_of(values)), rgb_to_xyz(FALLBACK)
    adapted = bradford(source.sum(1), target.sum(1)) @ source
    return torch.linalg.solve(target, adapted).numpy().astype(np.float32)
