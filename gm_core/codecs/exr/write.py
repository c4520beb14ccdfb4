"""Writes OpenEXR with its colour space, layers and metadata."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from ...color import PRIMARIES, srgb_to_linear
from ...errors import ImageWriteError
from ..image import check_choice, check_hdr, check_white
from ..libraries import openexr_library
from .layers import SDR_LAYER

# The lossless ones first; dwaa and dwab change pixels by about 1 part in 500.
COMPRESSIONS = ("zip", "zips", "piz", "rle", "none", "dwaa", "dwab")
INTEROP_IDS: Mapping[str, str] = MappingProxyType(
    {
        "bt709": "lin_rec709_scene",
        "p3": "lin_p3d65_scene",
        "bt2020": "lin_rec2020_scene",
        "acescg": "lin_ap1_scene",
    }
)
HALF_MAX = 65504.0
# DWA codes 16-bit floats and overshoots at edges; what it carries beyond 65504 would be read as infinite.
DWA_MAX = 60000.0
SDR_NOTE = "linear light of the sRGB-encoded SDR picture"

_LAYER = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,30}\Z")
_LONGEST_NAME = 255
_RESERVED = {
    *("adoptedNeutral", "cameraColorBalance", "originalDataWindow", "sensorAcquisitionRectangle"),
    *("sensorCenterOffset", "sensorOverallDimensions"),
    *("channels", "chromaticities", "chunkCount", "colorInteropID", "compression", "dataWindow"),
    *("displayWindow", "lineOrder", "name", "pixelAspectRatio", "screenWindowCenter", "screenWindowWidth"),
    *("tiles", "type", "version", "view", "whiteLuminance"),
}


def encode_exr(
    hdr: np.ndarray,
    *,
    primaries: str = "bt709",
    white_nits: float = 203.0,
    attributes: Mapping[str, str | int | float] = MappingProxyType({}),
    half: bool = False,
    compression: str = "zip",
    alpha: np.ndarray | None = None,
    layers: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> bytes:
    """One scan-line part whose main R, G, B are the HDR picture.

    hdr: [H,W,3] linear light in `primaries`, 1.0 = SDR white = `white_nits`; negative values are kept.
    alpha: [H,W] in [0,1], by which `hdr`, but no layer, is multiplied in the file, as OpenEXR asks.
    half: 16-bit floats. Values beyond `largest_value` are clamped to it.
    layers: name -> [H,W,1] or [H,W,3], stored as `name.Y` or `name.R/G/B` beside the picture; `decode_exr`
        gives back those that `exr_layers` names. SDR_LAYER is taken display-encoded (sRGB curve, [0,1]) and
        stored linear, as compositors expect of every layer; attribute `gm.sdr` says so.
    attributes: extra header entries, for example prompt, workflow, and those of `equation_attributes`.

    Raises:
        ImageWriteError: wrong shape, non-finite pixels, or an option, layer or attribute out of range;
            or the OpenEXR library is missing or fails.
    """
    openexr = openexr_library("writing .exr", ImageWriteError)
    check_choice(primaries, PRIMARIES, what="primaries")
    check_choice(compression, COMPRESSIONS, what="compression")
    picture = check_hdr(hdr)
    channels = {"RGB" if alpha is None else "RGBA": _with_alpha(picture, alpha)}
    channels |= _layer_channels(layers, picture.shape[:2])
    header = _attributes(attributes) | _colour(primaries, white_nits)
    scheme = "NO" if compression == "none" else compression.upper()
    header["compression"] = getattr(openexr, f"{scheme}_COMPRESSION")
    header["type"] = openexr.scanlineimage
    if SDR_LAYER in layers:
        header["gm.sdr"] = SDR_NOTE
    buffer = io.BytesIO()
    limit, kind = largest_value(half=half, compression=compression), np.float16 if half else np.float32
    stored = {name: _clamped(pixels, limit).astype(kind, copy=False) for name, pixels in channels.items()}
    try:
        openexr.File(header, stored).write(buffer)
    except (RuntimeError, ValueError, TypeError) as error:
        raise ImageWriteError(f"OpenEXR cannot write this picture: {error}") from error
    return buffer.getvalue()


def largest_value(*, half: bool, compression: str) -> float:
    """The largest magnitude that a file of this kind holds."""
    if compression.startswith("dwa"):
        return DWA_MAX
    return HALF_MAX if half else float(np.finfo(np.float32).max)


def _with_alpha(picture: np.ndarray, alpha: np.ndarray | None) -> np.ndarray:
    if alpha is None:
        return picture
    values = np.asarray(alpha, np.float32)
    if values.shape != picture.shape[:2]:
        raise ImageWriteError(f"alpha has shape {values.shape}; expected {picture.shape[:2]}")
    if not (values.min() >= 0 and values.max() <= 1):
        raise ImageWriteError("alpha has values outside 0 to 1; clip it first")
    return np.concatenate([picture * values[..., None], values[..., None]], axis=-1)


def _layer_channels(layers: Mapping[str, np.ndarray], size: tuple[int, ...]) -> dict[str, np.ndarray]:
    channels: dict[str, np.ndarray] = {}
    for name, pixels in layers.items():
        if not _LAYER.match(name):
            raise ImageWriteError(f"layer name {name!r}; expected letters, digits and _, at most 31")
        values = np.ascontiguousarray(pixels, dtype=np.float32)
        if values.ndim != 3 or values.shape[:2] != size or values.shape[2] not in (1, 3):
            raise ImageWriteError(
                f"layer {name!r} has shape {values.shape}; expected {(*size, 3)} or 1 channel"
            )
        if not np.isfinite(values).all():
            raise ImageWriteError(f"layer {name!r} contains NaN or infinite values")
        if name == SDR_LAYER:
            values = srgb_to_linear(torch.from_numpy(values)).numpy()
        if values.shape[2] == 1:
            channels[f"{name}.Y"] = values[..., 0]
        else:
            channels |= {f"{name}.{letter}": values[..., index].copy() for index, letter in enumerate("RGB")}
    return channels


def _clamped(pixels: np.ndarray, limit: float) -> np.ndarray:
    within = -limit <= pixels.min() and pixels.max() <= limit
    return pixels if within else np.clip(pixels, -np.float32(limit), np.float32(limit))


def _colour(primaries: str, white_nits: float) -> dict[str, Any]:
    check_white(white_nits)
    return {
        "chromaticities": tuple(float(value) for xy in PRIMARIES[primaries] for value in xy),
        "whiteLuminance": float(white_nits),
        "colorInteropID": INTEROP_IDS[primaries],
    }


def is_attribute_name(name: str) -> bool:
    """Whether an extra header entry may have that name: not one whose meaning OpenEXR has settled, and 1 to
    255 bytes of UTF-8."""
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        return False
    return 0 < length <= _LONGEST_NAME and "\0" not in name and name not in _RESERVED


def _attributes(attributes: Mapping[str, str | int | float]) -> dict[str, Any]:
    header: dict[str, Any] = {}
    for name, value in attributes.items():
        if not is_attribute_name(name):
            raise ImageWriteError(f"{name!r} cannot be the name of an extra OpenEXR attribute")
        # The binding refuses numpy scalars.
        header[name] = value if isinstance(value, str) else _number(name, value)
    return header


def _number(name: str, value: int | float) -> int | float:
    if isinstance(value, (int, np.integer)):
        if -(2**31) <= value < 2**31:
            return int(value)
    elif isinstance(value, (float, np.floating)):
        return float(value)
    raise ImageWriteError(f"attribute {name!r} is {value!r}; expected a string, a 32-bit integer or a float")
