"""Decoded FFmpeg frames as full-range RGB signals, without the lossy paths of its scaler."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..errors import ImageReadError
from .image import HDRImage, check_size
from .libraries import library
from .signal import picture_of

# ITU-T H.273 table 4: matrix number -> (Kr, Kb); 0 is RGB itself and 2 means unspecified.
_LUMA = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}
_FULL_RANGE = 2
_PLANAR = ("yuv4", "yuvj4", "gbr", "gray", "yuva4")


@contextmanager
def opened(source: bytes | str, format_name: str | None = None) -> Iterator[Any]:
    """The PyAV container of a file in memory, or of a path."""
    av = library("av", "reading this format", ImageReadError)
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    with av.open(file, format=format_name, metadata_errors="ignore") as container:
        if not container.streams.video:
            raise ImageReadError("no picture in the file")
        stream = container.streams.video[0]
        check_size(stream.codec_context.width, stream.codec_context.height, source=container.format.name)
        yield container


def frame_picture(frame: Any, *, white_nits: float = 203.0) -> HDRImage:
    """A decoded frame as a picture, by the colour tags it carries.

    Raises:
        ImageReadError: the pixel format or its matrix is not supported.
    """
    primaries, transfer = int(frame.color_primaries), int(frame.color_trc)
    return picture_of(frame_codes(frame), primaries=primaries, transfer=transfer, white_nits=white_nits)


def frame_codes(frame: Any) -> np.ndarray:
    """float32 [H,W,3] in [0,1]: the RGB signal of a planar frame of any depth and chroma sampling.

    Raises:
        ImageReadError: the pixel format or its matrix is not supported.
    """
    name = frame.format.name
    if not name.startswith(_PLANAR):
        raise ImageReadError(f"pixel format {name} is not supported")
    planes = [_plane(frame, index) for index in range(1 if name.startswith("gray") else 3)]
    scale = np.float32(1 / ((1 << frame.format.components[0].bits) - 1))
    if name.startswith("gray"):
        return np.repeat(planes[0][..., None] * scale, 3, axis=-1)
    if name.startswith("gbr"):
        return np.stack([planes[2], planes[0], planes[1]], axis=-1) * scale
    return _from_ycc(frame, [plane * scale for plane in planes])


def packed_pixels(frame: Any) -> np.ndarray:
    """uint16 [H,W,C] of a frame that stores its 16-bit channels interleaved.

    Raises:
        ImageReadError: it does not.
    """
    components = frame.format.components
    if len(frame.planes) != 1 or any(component.bits != 16 for component in components):
        raise ImageReadError(f"pixel format {frame.format.name} is not supported")
    kind = ">u2" if frame.format.is_big_endian else "<u2"
    lines = np.frombuffer(frame.planes[0], np.uint8).reshape(-1, frame.planes[0].line_size)[: frame.height]
    pixels = lines[:, : 2 * len(components) * frame.width].copy().view(kind)
    return pixels.reshape(frame.height, frame.width, -1).astype(np.uint16)


def _plane(frame: Any, index: int) -> np.ndarray:
    """[h,w] of one plane, its padding removed; float32 codes."""
    plane, component = frame.planes[index], frame.format.components[index]
    kind = np.dtype(np.uint8 if component.bits <= 8 else (">u2" if frame.format.is_big_endian else "<u2"))
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height]
    return rows[:, : plane.width * kind.itemsize].copy().view(kind).astype(np.float32)


def _from_ycc(frame: Any, planes: list[np.ndarray]) -> np.ndarray:
    luma = _LUMA.get(int(frame.colorspace) if int(frame.colorspace) != 2 else 6)
    if luma is None:
        raise ImageReadError(f"colour matrix {int(frame.colorspace)} is not supported")
    top = (1 << frame.format.components[0].bits) - 1
    y, cb, cr = planes
    half = (top + 1) / 2 / top
    if int(frame.color_range) == _FULL_RANGE or frame.format.name.startswith("yuvj"):
        cb, cr = cb - half, cr - half
    else:
        unit = (top + 1) / 256 / top
        y = (y - 16 * unit) / (219 * unit)
        cb, cr = (cb - half) / (224 * unit), (cr - half) / (224 * unit)
    cb, cr = (_stretch(plane, y.shape) for plane in (cb, cr))
    kr, kb = luma
    red, blue = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
    green = (y - kr * red - kb * blue) / (1 - kr - kb)
    return np.clip(np.stack([red, green, blue], axis=-1), 0, 1).astype(np.float32)


def _stretch(plane: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Chroma at full size: each sample sits on the first pixel of its block, between them is linear."""
    for axis in (0, 1):
        count = plane.shape[axis]
        if count != size[axis]:
            low = np.arange(size[axis]) // 2
            high = np.minimum(low + np.arange(size[axis]) % 2, count - 1)
            plane = (plane.take(low, axis) + plane.take(high, axis)) / 2
    return plane
