"""What a reader returns and what the size limits are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import ImageReadError, ImageWriteError

MAX_SIDE = 32768
MAX_PIXELS = 2**27


@dataclass
class HDRImage:
    """A picture read from a file.

    hdr: float32 [H,W,3], linear light in `primaries`, 1.0 = SDR white, unclamped, not multiplied by alpha.
    sdr: float32 [H,W,3] in [0,1], sRGB curve in `primaries`, or None if the file has no SDR rendition.
    gain_map: float32 [h,w,1|3] as stored in the file and at its own resolution, or None. `metadata`
        tells how to read it: "gain_map" (a GainMapMetadata) for JPEG, "gm.qmax" and friends for EXR.
    alpha: float32 [H,W] in [0,1] or None.
    white_nits: luminance of 1.0 in cd/m2.
    metadata: whatever else the file says: strings, numbers and the objects named above.
    """

    hdr: np.ndarray
    sdr: np.ndarray | None = None
    gain_map: np.ndarray | None = None
    alpha: np.ndarray | None = None
    primaries: str = "bt709"
    white_nits: float = 203.0
    metadata: dict[str, Any] = field(default_factory=dict)


def check_size(width: int, height: int, *, source: str, max_pixels: int = MAX_PIXELS) -> None:
    """Refuse a size read from a header before anything of that size is allocated.

    Raises:
        ImageReadError: a side is below 1 or above MAX_SIDE, or the area is above `max_pixels`.
    """
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE) or width * height > max_pixels:
        raise ImageReadError(
            f"{source}: the header states {width} x {height} pixels; supported are sides of 1 to {MAX_SIDE} "
            f"and at most {max_pixels} pixels; scale the picture down first"
        )


def check_ratio(decoded: int, encoded: int, limit: int, *, source: str) -> None:
    """Refuse a header whose picture could not be compressed into so few bytes, so that memory stays in
    proportion to the file.

    Raises:
        ImageReadError: `decoded` is more than `limit` times `encoded`.
    """
    if decoded > limit * (encoded + 64):
        raise ImageReadError(
            f"{source}: {encoded} bytes of file cannot hold the size stated in its header; "
            "the file is truncated or damaged"
        )


def check_hdr(hdr: np.ndarray, *, what: str = "hdr") -> np.ndarray:
    """The picture as a C-ordered float32 array [H,W,3]; a view of the input where it already is one.

    Raises:
        ImageWriteError: wrong shape, empty, or a NaN or Inf inside.
    """
    picture = check_shape(hdr, what=what)
    if picture.dtype.kind not in "fiu":
        raise ImageWriteError(f"{what} has dtype {picture.dtype}; expected real numbers")
    picture = np.ascontiguousarray(picture, dtype=np.float32)
    # A sum is finite only if every term is, or if it overflows; the full test runs in that case alone.
    if not np.isfinite(picture.sum(dtype=np.float64)) and not np.isfinite(picture).all():
        raise ImageWriteError(f"{what} contains NaN or infinite pixels; call sanitize() first")
    return picture


def check_shape(picture: np.ndarray, *, what: str) -> np.ndarray:
    """The array itself if it is [H,W,3].

    Raises:
        ImageWriteError: it is not, or it is empty.
    """
    array = np.asarray(picture)
    if array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise ImageWriteError(f"{what} has shape {array.shape}; expected (height, width, 3)")
    return array


def check_choice(value: str, choices: Mapping[str, Any] | tuple[str, ...], *, what: str) -> None:
    """Refuse an option that is none of those there are.

    Raises:
        ImageWriteError: `value` is not one of `choices`.
    """
    if value not in choices:
        raise ImageWriteError(f"{what} is {value!r}; expected one of {', '.join(choices)}")


def check_white(white_nits: float) -> None:
    """Refuse a luminance of SDR white that no display has.

    Raises:
        ImageWriteError: it is not above 0, or above 10000 cd/m2.
    """
    if not 0 < white_nits <= 10000:
        raise ImageWriteError(f"white_nits is {white_nits}; expected more than 0 and at most 10000")


def divide_by_alpha(colour: np.ndarray, alpha: np.ndarray) -> None:
    """Undo, in place, that a colour [H,W,3] was multiplied by its alpha [H,W]; at alpha 0 it stays."""
    cover = alpha[..., None]
    np.divide(colour, cover, out=colour, where=cover > 0)


def row_blocks(height: int, width: int, block_pixels: int = 1 << 18) -> Iterator[slice]:
    """Slices of whole rows with about `block_pixels` pixels each: temporaries stay in cache."""
    step = max(1, block_pixels // width)
    for top in range(0, height, step):
        yield slice(top, min(top + step, height))


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn whatever a decoder raises on damaged data into ImageReadError.

    Codec libraries document no closed list of exceptions, hence the broad clause; the cause is chained.
    """
    try:
        yield
    except ImageReadError:
        raise
    except MemoryError as error:
        raise ImageReadError(f"{what}: not enough memory to decode it") from error
    except Exception as error:
        cause = str(error) or type(error).__name__
        raise ImageReadError(
            f"{what}: the file is truncated or damaged; copy or export it again ({cause})"
        ) from error
