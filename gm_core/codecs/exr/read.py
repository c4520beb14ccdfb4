"""Reads OpenEXR files of any layout: half, float, integer, tiled, cropped, multi-part, luminance-chroma."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ...color import PRIMARIES, linear_to_srgb, rgb_to_xyz
from ...errors import ImageReadError
from ..chromaticities import convert, resolve_primaries, rgb_to_xyz_of
from ..image import HDRImage, check_ratio, check_size, divide_by_alpha, reading
from ..libraries import openexr_library
from .layers import GAIN_MAP_LAYER, SDR_LAYER

_MAX_BYTES = 2**32
# PIZ stores a block of black in about 30 bytes; no codec does better than this.
_MAX_RATIO = 100_000
_MAX_TILE = 2**24
# Beginnings of the Color Interop Forum's names: CIE XYZ, and spaces with a transfer curve.
_XYZ_D65 = "lin_ciexyzd65_"
_ENCODED = ("srgb_", "srgbe_", "srgbx_", "g18_", "g22_", "g24_", "g26_", "pq_", "hlg_")
_LAYERS = (SDR_LAYER, GAIN_MAP_LAYER)
# What renderers call the picture among their layers; in Blender it is ViewLayer.Combined.
_PICTURE_LAYERS = ("combined", "beauty", "rgba", "rgb")
# X, Y, Z of a layer are normals or positions.
_LAYER_COLOURS = (("R", "G", "B"), ("Y", "RY", "BY"))

Window = tuple[int, int, int, int]
Channels = Mapping[str, np.ndarray]


def decode_exr(data: bytes) -> HDRImage:
    """The picture of an OpenEXR file, as large as its display window.

    The first part with R, G, B (or X, Y, Z, or Y, RY, BY, or Y alone, or one layer of these, first one that
    is called combined, beauty or the like) is the picture, in that order. Layers or parts with the names of
    `exr_layers` become the SDR picture and the gain map.
    Chromaticities that are none of `gm_core.color.PRIMARIES` are converted to BT.2020. NaN and infinite
    pixels are returned as they are. OpenEXR multiplies colours by alpha, which is undone where alpha is
    above 0; what shines without covering anything, at alpha 0, is kept. `metadata`: the string and number
    attributes, "format", "channels".

    Raises:
        ImageReadError: not an OpenEXR file, damaged, too large, deep, or without a colour picture.
    """
    with reading("OpenEXR"):
        openexr = openexr_library("reading .exr", ImageReadError)
        _check_headers(openexr, data)
        # Attribute values and pixels belong to the file object: copy what is kept before it closes.
        with openexr.File(io.BytesIO(data), separate_channels=True) as file:
            if not file.parts:
                raise ImageReadError("OpenEXR: the pixel data is truncated or damaged")
            return _picture(openexr, file.parts)


def _check_headers(openexr: Any, data: bytes) -> None:
    """Refuse sizes that the file cannot hold before the library allocates them."""
    total = 0
    with openexr.File(io.BytesIO(data), separate_channels=True, header_only=True) as file:
        for part in file.parts:
            if part.header["type"] in (openexr.deepscanline, openexr.deeptile):
                raise ImageReadError("OpenEXR: deep pictures are not supported; flatten it first")
            left, top, right, bottom = _window(part.header["dataWindow"])
            check_size(right - left, bottom - top, source="OpenEXR")
            _check_tiles(part.header.get("tiles"))
            samples = sum(1 / (channel.xSampling * channel.ySampling) for channel in part.header["channels"])
            total += int(4 * samples * (right - left) * (bottom - top))
    if total > _MAX_BYTES:
        raise ImageReadError(f"OpenEXR: the pixels would take {total} bytes; at most {_MAX_BYTES} are read")
    check_ratio(total, len(data), _MAX_RATIO, source="OpenEXR")


def _check_tiles(tiles: Any) -> None:
    """The library allocates a whole tile, however small the picture in it."""
    if tiles is not None and tiles.xSize * tiles.ySize > _MAX_TILE:
        raise ImageReadError(
            f"OpenEXR: tiles of {tiles.xSize} x {tiles.ySize} pixels; at most {_MAX_TILE} pixels are read. "
            "Save it with smaller tiles or in scan lines"
        )


def _picture(openexr: Any, parts: list[Any]) -> HDRImage:
    listings = [{name: channel.pixels for name, channel in part.channels.items()} for part in parts]
    index, prefix = _find_colour(listings)
    channels, header = listings[index], parts[index].header
    hdr = _colour(channels, prefix, header)
    place = _placement(header)
    alpha = _alpha(channels, prefix, hdr.shape[:2])
    if alpha is not None:
        divide_by_alpha(hdr, alpha)
    picture = HDRImage(_place(hdr, place), metadata=_metadata(header, listings))
    picture.alpha = None if alpha is None else _place(alpha, place)
    _add_colour_space(picture, openexr, header, is_xyz=_is_xyz(channels, prefix))
    _add_layers(picture, parts, listings, index, place)
    return picture


def _find_colour(listings: Sequence[Channels]) -> tuple[int, str]:
    """The part and the channel name prefix of the picture."""
    for wanted in (*_LAYER_COLOURS[:1], ("X", "Y", "Z"), ("Y",)):
        for index, channels in enumerate(listings):
            if all(name in channels for name in wanted):
                return index, ""
    for wanted in _LAYER_COLOURS:
        for index, channels in enumerate(listings):
            prefixes = (name[: -len(wanted[0])] for name in channels if name.endswith(f".{wanted[0]}"))
            for prefix in sorted(prefixes, key=_layer_order):
                if all(f"{prefix}{name}" in channels for name in wanted):
                    return index, prefix
    names = ", ".join(name for channels in listings for name in channels) or "none"
    raise ImageReadError(
        f"OpenEXR: no R, G, B or Y channels; the file has: {names[:300]}. Name its colours R, G, B"
    )


def _layer_order(prefix: str) -> tuple[bool, str]:
    """Layers that are called a picture before ambient occlusion and what else comes before them by name."""
    return prefix.split(".")[-2].lower() not in _PICTURE_LAYERS, prefix


def _colour(channels: Channels, prefix: str, header: Mapping[str, Any]) -> np.ndarray:
    """[h,w,3] float32 of the data window."""
    if f"{prefix}R" in channels:
        planes = [channels[f"{prefix}{letter}"] for letter in "RGB"]
        size = (max(plane.shape[0] for plane in planes), max(plane.shape[1] for plane in planes))
        return np.stack([_full(plane, size) for plane in planes], axis=-1)
    y = channels[f"{prefix}Y"].astype(np.float32)
    if _is_xyz(channels, prefix):
        x, z = (_full(channels[f"{prefix}{letter}"], y.shape) for letter in "XZ")
        return np.stack([x, y, z], axis=-1)
    if f"{prefix}RY" not in channels or f"{prefix}BY" not in channels:
        return np.repeat(y[..., None], 3, axis=-1)
    red = (_full(channels[f"{prefix}RY"], y.shape) + 1) * y
    blue = (_full(channels[f"{prefix}BY"], y.shape) + 1) * y
    kr, kg, kb = _luminance_weights(header)
    return np.stack([red, (y - kr * red - kb * blue) / kg, blue], axis=-1).astype(np.float32)


def _alpha(channels: Channels, prefix: str, size: tuple[int, ...]) -> np.ndarray | None:
    """float32 [h,w] in [0,1] of the data window, 0 where it is no number; None where the picture has none."""
    alpha = channels.get(f"{prefix}A")
    return None if alpha is None else np.fmin(np.fmax(_full(alpha, size), np.float32(0)), np.float32(1))


def _is_xyz(channels: Channels, prefix: str) -> bool:
    return f"{prefix}R" not in channels and all(f"{prefix}{letter}" in channels for letter in "XYZ")


def _luminance_weights(header: Mapping[str, Any]) -> np.ndarray:
    """Of the file's primaries, or of BT.709 where they are unusable, as `resolve_primaries` has it."""
    bt709 = [value for xy in PRIMARIES["bt709"] for value in xy]
    try:
        return rgb_to_xyz_of(header.get("chromaticities") or bt709)[1]
    except ImageReadError:
        return rgb_to_xyz_of(bt709)[1]


def _full(plane: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """float32 [H,W]; a subsampled plane is interpolated, its samples sit on every second pixel."""
    out = plane.astype(np.float32)
    for axis in (0, 1):
        count = out.shape[axis]
        if count != size[axis]:
            positions = np.arange(size[axis]) * (count / size[axis])
            low = np.minimum(positions.astype(np.intp), count - 1)
            high = np.minimum(low + 1, count - 1)
            share = (positions - low).astype(np.float32)
            share = share[:, None] if axis == 0 else share
            out = out.take(low, axis) * (1 - share) + out.take(high, axis) * share
    return out


def _placement(header: Mapping[str, Any]) -> tuple[Window, Window]:
    """Data and display window; where they do not meet, the data window counts as both."""
    data, display = _window(header["dataWindow"]), _window(header["displayWindow"])
    meets = data[0] < display[2] and display[0] < data[2] and data[1] < display[3] and display[1] < data[3]
    if not meets:
        return data, data
    check_size(display[2] - display[0], display[3] - display[1], source="OpenEXR display window")
    return data, display


def _place(pixels: np.ndarray, place: tuple[Window, Window]) -> np.ndarray:
    """Crop to the display window, black where there is no data."""
    data, display = place
    if data == display:
        return pixels
    out = np.zeros((display[3] - display[1], display[2] - display[0], *pixels.shape[2:]), np.float32)
    left, top = max(data[0], display[0]), max(data[1], display[1])
    right, bottom = min(data[2], display[2]), min(data[3], display[3])
    source = pixels[top - data[1] : bottom - data[1], left - data[0] : right - data[0]]
    out[top - display[1] : bottom - display[1], left - display[0] : right - display[0]] = source
    return out


def _window(box: tuple[np.ndarray, np.ndarray]) -> Window:
    """Left, top, right, bottom with exclusive ends."""
    (left, top), (right, bottom) = box
    return int(left), int(top), int(right) + 1, int(bottom) + 1


def _add_layers(
    picture: HDRImage,
    parts: list[Any],
    listings: Sequence[Channels],
    index: int,
    place: tuple[Window, Window],
) -> None:
    found: dict[str, np.ndarray] = {}
    sources = [(f"{name}.", name, listings[index]) for name in _LAYERS]
    sources += [("", part.header.get("name"), listings[i]) for i, part in enumerate(parts) if i != index]
    for prefix, name, channels in sources:
        planes = [channels.get(f"{prefix}{letter}") for letter in "RGB"]
        planes = [channels.get(f"{prefix}Y")] if planes[0] is None else planes
        size = (place[0][3] - place[0][1], place[0][2] - place[0][0])
        if name in _LAYERS and all(plane is not None and plane.shape == size for plane in planes):
            pixels = np.stack([plane.astype(np.float32) for plane in planes if plane is not None], axis=-1)
            found[name] = _place(pixels, place)
    picture.gain_map, sdr = found.get(GAIN_MAP_LAYER), found.get(SDR_LAYER)
    if sdr is not None:
        sdr = np.repeat(sdr, 3 // sdr.shape[2], axis=-1)
        picture.sdr = linear_to_srgb(torch.from_numpy(sdr)).clamp(0, 1).numpy()


def _add_colour_space(picture: HDRImage, openexr: Any, header: Mapping[str, Any], *, is_xyz: bool) -> None:
    known, identity = header.get("chromaticities"), str(header.get("colorInteropID", ""))
    if identity.startswith(_ENCODED):
        raise ImageReadError(
            f"OpenEXR: its colorInteropID {identity!r} says that its values are no linear light; convert it "
            "to a linear colour space, such as lin_rec709_scene, first"
        )
    if known is None and (is_xyz or identity.startswith(_XYZ_D65)):
        # No white is stated: the values are CIE XYZ as they are, under D65.
        convert(picture, np.linalg.inv(rgb_to_xyz("bt2020").numpy()).astype(np.float32))
    elif known is None and identity:
        known = openexr.colorInteropIDToChromaticities(identity)
    if known is not None:
        picture.primaries, matrix = resolve_primaries(known)
        if matrix is not None:
            convert(picture, matrix)
    white = header.get("whiteLuminance")
    if isinstance(white, (int, float)) and 0 < white <= 10000:
        picture.white_nits = float(white)


def _metadata(header: Mapping[str, Any], listings: Sequence[Channels]) -> dict[str, Any]:
    values = {name: value for name, value in header.items() if isinstance(value, (str, int, float))}
    return {**values, "format": "exr", "channels": sorted({name for names in listings for name in names})}
