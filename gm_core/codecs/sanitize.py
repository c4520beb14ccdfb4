"""The policy for pixels that a file format cannot hold: one place, counted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import ImageWriteError


@dataclass(frozen=True)
class SanitizeCounts:
    """How many values (not pixels) were replaced."""

    nan: int = 0
    infinite: int = 0
    negative: int = 0

    @property
    def total(self) -> int:
        return self.nan + self.infinite + self.negative

    def __str__(self) -> str:
        parts = [
            f"{self.nan} NaN -> 0" if self.nan else "",
            f"{self.infinite} infinite -> peak or 0" if self.infinite else "",
            f"{self.negative} negative -> 0" if self.negative else "",
        ]
        return ", ".join(part for part in parts if part) or "nothing replaced"


def sanitize(
    hdr: np.ndarray, *, peak: float | None = None, keep_negative: bool = False, strict: bool = False
) -> tuple[np.ndarray, SanitizeCounts]:
    """Replace NaN by 0, +Inf by `peak`, -Inf by 0 and, unless kept, negative values by 0.

    hdr: any shape, linear light. `peak` defaults to the largest finite value of the picture.
    Returns float32 (the input itself if it is float32 and clean) and the counts. OpenEXR holds negative
    values (colours outside the primaries); Radiance, PQ and Ultra HDR do not.

    Raises:
        ImageWriteError: `strict` and something would be replaced.
    """
    picture = np.asarray(hdr, dtype=np.float32)
    finite = np.isfinite(picture)
    nan = int(np.count_nonzero(np.isnan(picture)))
    infinite = picture.size - int(np.count_nonzero(finite)) - nan
    negative = 0 if keep_negative else int(np.count_nonzero(finite & (picture < 0)))
    counts = SanitizeCounts(nan, infinite, negative)
    if not counts.total:
        return picture, counts
    if strict:
        raise ImageWriteError(
            f"the picture holds {nan} NaN, {infinite} infinite and {negative} negative values"
        )
    if peak is None:
        peak = float(np.max(picture, where=finite, initial=0.0))
    clean = np.nan_to_num(picture, nan=0.0, posinf=peak, neginf=0.0)
    if not keep_negative:
        np.maximum(clean, 0, out=clean)
    return clean, counts
