"""Decoded FFmpeg frames as full-range RGB signals, without the lossy paths of its scaler."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from ..errors import ImageReadError
from .image import HDRImage, check_size
from .libraries import library
from .signal import BT2020, BT2020_NCL, HLG, PQ, UNSPECIFIED, picture_of

# ITU-T H.273 table 4: matrix number -> (Kr, Kb).
_LUMA = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}
BT601, _YCGCO = 6, 8
_LIMITED_RANGE, _FULL_RANGE = 1, 2
# Names of FFmpeg's demuxers, which are listed whole.
_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts"
# AV_DISPOSITION_ATTACHED_PIC.
_COVER = 0x400
_PLANAR = ("yuv4", "yuvj4", "gbr", "gray", "yuva4")


class Tags(NamedTuple):
    """How a signal is meant, in numbers of ITU-T H.273. range: 0 not stated, 1 limited, 2 full."""

    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED
    matrix: int = UNSPECIFIED
    range: int = 0

    def or_else(self, other: Tags) -> Tags:
        """What is not stated here taken from `other`."""
        return Tags(*(b if a == missing else a for a, b, missing in zip(self, other, Tags(), strict=True)))


def tags_of(source: Any) -> Tags:
    """The tags of a frame, or of the context that decodes it."""
    return Tags(
        int(source.color_primaries), int(source.color_trc), int(source.colorspace), int(source.color_range)
    )


@contextmanager
def opened(source: bytes | str, format_name: str | None = None) -> Iterator[Any]:
    """The PyAV container of a file in memory, or of a path; never one that refers to other files."""
    av = library("av", "reading this format", ImageReadError)
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    allowed = {"format_whitelist": format_name or _CONTAINERS}
    with av.open(file, format=format_name, options=allowed, metadata_errors="ignore") as container:
        if not container.streams.video:
            raise ImageReadError("no picture in the file")
        context = picture_stream(container).codec_context
        if context is None:
            raise ImageReadError("its pictures are coded in a way that is not supported; convert it first")
        if not context.width or not context.height:
            raise ImageReadError("its pixels cannot be found; the file is truncated or damaged")
        check_size(context.width, context.height, source=container.format.name)
        yield container


def picture_stream(container: Any) -> Any:
    """The first stream of pictures that is no cover, which some tools put before the film."""
    streams = container.streams.video
    return next((stream for stream in streams if not _is_cover(stream)), streams[0])


def _is_cover(stream: Any) -> bool:
    """Whether the stream is one picture attached to others; old PyAV does not tell."""
    return bool(getattr(getattr(stream, "disposition", None), "value", 0) & _COVER)


def frame_picture(
    frame: Any, tags: Tags | None = None, *, white_nits: float = 203.0, centred: bool = False
) -> HDRImage:
    """A decoded frame as a picture, by `tags`, or those it carries.

    Raises:
        ImageReadError: the pixel format, its curve or its matrix is not supported.
    """
    tags = tags or tags_of(frame)
    codes = frame_codes(frame, tags, centred=centred)
    return picture_of(codes, primaries=tags.primaries, transfer=tags.transfer, white_nits=white_nits)


def frame_codes(frame: Any, tags: Tags | None = None, *, centred: bool = False) -> np.ndarray:
    """float32 [H,W,3] in [0,1]: the RGB signal of a planar frame of any depth and chroma sampling.

    centred: whether a subsampled colour sits in the middle of its block rather than on its first pixel.

    Raises:
        ImageReadError: the pixel format or its matrix is not supported.
    """
    name, tags = frame.format.name, tags or tags_of(frame)
    if not name.startswith(_PLANAR):
        raise ImageReadError(f"pixel format {name} is not supported; convert it to planar YUV or RGB first")
    planes = [_plane(frame, index) for index in range(1 if name.startswith("gray") else 3)]
    bits = frame.format.components[0].bits
    if name.startswith(("gray", "gbr")):
        planes = [full_range(plane, bits, limited=tags.range == _LIMITED_RANGE) for plane in planes]
        order = (0, 0, 0) if name.startswith("gray") else (2, 0, 1)
        return np.clip(np.stack([planes[index] for index in order], axis=-1), 0, 1)
    limited = tags.range != _FULL_RANGE and not name.startswith("yuvj")
    y = full_range(planes[0], bits, limited=limited)
    chroma = [_full_chroma(plane, bits, limited=limited) for plane in planes[1:]]
    return _from_ycc(y, *(_stretch(plane, y.shape, centred) for plane in chroma), tags=tags)


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


def full_range(plane: np.ndarray, bits: int, *, limited: bool) -> np.ndarray:
    """Codes of luma or of a colour, float32 of any shape, as 0 to 1; a limited range may leave it."""
    unit = np.float32(1 << bits - 8)
    if limited:
        return (plane - 16 * unit) / (219 * unit)
    return plane * np.float32(1 / ((1 << bits) - 1))


def _full_chroma(plane: np.ndarray, bits: int, *, limited: bool) -> np.ndarray:
    """Codes of a colour difference as -0.5 to 0.5."""
    unit = np.float32(1 << bits - 8)
    return (plane - 128 * unit) / (224 * unit if limited else np.float32((1 << bits) - 1))


def _from_ycc(y: np.ndarray, cb: np.ndarray, cr: np.ndarray, *, tags: Tags) -> np.ndarray:
    matrix = tags.matrix
    if matrix == UNSPECIFIED:
        matrix = BT2020_NCL if tags.primaries == BT2020 or tags.transfer in (PQ, HLG) else BT601
    if matrix == _YCGCO:
        rest = y - cb
        rgb = rest + cr, y + cb, rest - cr
    elif matrix in _LUMA:
        kr, kb = _LUMA[matrix]
        red, blue = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
        rgb = red, (y - kr * red - kb * blue) / (1 - kr - kb), blue
    else:
        raise ImageReadError(
            f"colour matrix {matrix} of H.273 is not supported; convert it to RGB or BT.2020 YCbCr (9) first"
        )
    return np.clip(np.stack(rgb, axis=-1), 0, 1).astype(np.float32)


def _stretch(plane: np.ndarray, size: tuple[int, ...], centred: bool) -> np.ndarray:
    """Chroma at full size, linear between its samples."""
    for axis in (0, 1):
        count = plane.shape[axis]
        if count != size[axis]:
            pixel = np.arange(size[axis])
            position = np.clip(pixel / 2 - (0.25 if centred else 0), 0, count - 1)
            low = position.astype(np.intp)
            share = (position - low).astype(np.float32)
            share = share[:, None] if axis == 0 else share
            high = np.minimum(low + 1, count - 1)
            plane = plane.take(low, axis) * (1 - share) + plane.take(high, axis) * share
    return plane
