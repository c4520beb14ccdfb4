"""Chromaticities found in a file, and the named set they are or are converted to."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch

from ..color import PRIMARIES, bradford, linear_to_srgb, rgb_to_xyz, srgb_to_linear
from ..errors import ImageReadError
from .image import HDRImage
from .sanitize import sanitize

logger = logging.getLogger(__name__)

# Wide enough for every set in use; colours outside it stay as negative values.
FALLBACK = "bt2020"
_TOLERANCE = 0.002
# Primaries that no eye can see lie beyond 1, but not far; of numbers without end a matrix is none.
_LARGEST = 10.0


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
    points = np.asarray(values, np.float64)
    if points.shape != (8,) or not (np.abs(points) <= _LARGEST).all() or abs(points[7]) < 1e-6:
        raise ImageReadError(f"the file's chromaticities {tuple(values)} are unusable")
    # Not divided by y, which is 0 for the X and Z of CIE XYZ.
    x, y = points.reshape(4, 2).T
    xyz = np.stack([x, y, 1 - x - y])
    if abs(np.linalg.det(xyz[:, :3])) < 1e-6:
        raise ImageReadError(f"the file's chromaticities {tuple(values)} do not span a colour space")
    return xyz[:, :3] * np.linalg.solve(xyz[:, :3], xyz[:, 3] / y[3])


def convert(picture: HDRImage, matrix: np.ndarray) -> None:
    """Apply a matrix to BT.2020 from `resolve_primaries`, in place. Infinite values become the picture's
    peak and pixels that are not a number stay so in all channels: as they are, they would turn into one
    another."""
    unknown = np.isnan(picture.hdr).any(axis=-1)
    picture.hdr = sanitize(picture.hdr, keep_negative=True)[0] @ matrix.T
    picture.hdr[unknown] = np.nan
    if picture.sdr is not None:
        linear = srgb_to_linear(torch.from_numpy(picture.sdr)).numpy() @ matrix.T
        picture.sdr = linear_to_srgb(torch.from_numpy(np.clip(linear, 0, 1))).numpy()
    picture.primaries = FALLBACK


def _matrix_to_fallback(values: Sequence[float]) -> np.ndarray:
    """[3,3] float32 linear RGB of these chromaticities to BT.2020, white adapted with Bradford."""
    source, target = torch.from_numpy(rgb_to_xyz_of(values)), rgb_to_xyz(FALLBACK)
    adapted = bradford(source.sum(1), target.sum(1)) @ source
    return torch.linalg.solve(target, adapted).numpy().astype(np.float32)
