"""How a model stores a gain map in the [0, 1] picture it paints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .errors import GainMapError
from .gain_map import GainMapSpec, limit_darkening, restate_gain_map

Encoding = Literal["linear", "log2"]


@dataclass(frozen=True)
class GainCoding:
    """Coding of the gain map in a model's picture.

    `linear` is the paper's: the picture is the map of Eq. (1). `log2` spreads the gain over stops:
    coded = (log2(1 + GM * qmax) - log2_min) / (log2_max - log2_min).

    Args:
        encoding: "linear" or "log2".
        log2_min: log2 gain of code 0; below 0 the model can darken.
        log2_max: log2 gain of code 1.

    Raises:
        GainMapError: unknown encoding, or a log2 range that is empty or outside [-16, 16].
    """

    encoding: Encoding = "linear"
    log2_min: float = 0.0
    log2_max: float = 0.0

    def __post_init__(self) -> None:
        if self.encoding not in ("linear", "log2"):
            raise GainMapError(f"encoding is {self.encoding!r}; expected 'linear' or 'log2'")
        bounds = (self.log2_min, self.log2_max)
        if self.encoding == "log2" and not (-16 <= self.log2_min < self.log2_max <= 16):
            raise GainMapError(f"log2 range is {bounds}; expected -16 <= log2_min < log2_max <= 16")
        if self.encoding == "linear" and bounds != (0.0, 0.0):
            raise GainMapError(f"log2 range is {bounds}; a linear encoding has none")

    @property
    def darkest(self) -> float:
        """The smallest gain the coding can hold: 1 where it is linear."""
        return 2.0**self.log2_min

    def to_gain_map(self, coded: Tensor, *, spec: GainMapSpec, sdr: Tensor | None = None) -> Tensor:
        """Picture of the model -> map of Eq. (1).

        Args:
            coded: any shape, clamped to [0, 1]; [B,1|3,H,W] with `sdr`.
            spec: constants of Eq. (1) the map is meant for.
            sdr: [B,3,H,W] display-encoded picture that the map is applied to; none of its channels loses
                more light than the coding can say, see `limit_darkening`.

        Returns:
            float32 of the same shape, in [-1/qmax, 1].

        Raises:
            GainMapError: `coded` and `sdr` do not fit, and the coding can darken.
        """
        picture = coded.to(torch.float32, copy=True).clamp_(0.0, 1.0)
        if self.encoding == "linear":
            return picture
        stops = picture.mul_(self.log2_max - self.log2_min).add_(self.log2_min)
        gain_map = (stops.exp2_() - 1.0).div_(spec.qmax).clamp_(max=1.0)
        if sdr is None or self.darkest >= 1:
            return gain_map
        return limit_darkening(sdr=sdr, gain_map=gain_map, darkest=self.darkest, spec=spec)

    def from_gain_map(self, gain_map: Tensor, *, spec: GainMapSpec) -> Tensor:
        """Map of Eq. (1) -> picture for the model, clamped to what the coding can hold.

        Args:
            gain_map: any shape, in [-1/qmax, 1].
            spec: constants of Eq. (1) the map was made with.

        Returns:
            float32 of the same shape, in [0, 1].
        """
        values = gain_map.to(torch.float32, copy=True)
        if self.encoding == "linear":
            return values.clamp_(0.0, 1.0)
        gain = values.mul_(spec.qmax).add_(1.0).clamp_(2.0**self.log2_min, 2.0**self.log2_max)
        return gain.log2_().sub_(self.log2_min).div_(self.log2_max - self.log2_min).clamp_(0.0, 1.0)


def restate_coded(
    *, coded: Tensor, sdr: Tensor, coding: GainCoding, spec: GainMapSpec, wanted: GainMapSpec
) -> Tensor:
    """The map of Eq. (1) that gives a stored map's HDR under other constants.

    Args:
        coded: [B,3,H,W], the map as stored, clamped to [0, 1].
        sdr: [B,3,H,W] display-encoded picture that the map belongs to, clamped to [0, 1].
        coding: how `coded` stores the gain.
        spec: constants of Eq. (1) the map was made with.
        wanted: those it is to be used with; gains beyond its qmax are cut.

    Returns:
        [B,3,H,W] float32 in [-1/qmax, 1].

    Raises:
        GainMapError: the shapes do not fit, or a tensor holds integers.
    """
    gain_map = coding.to_gain_map(coded, spec=spec)
    return restate_gain_map(sdr=sdr, gain_map=gain_map, spec=spec, wanted=wanted)
