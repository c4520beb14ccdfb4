"""Equation (1) of the paper, its inverse, and edits of the map between the two.

    HDR = (SDR^gamma + offset) * (1 + GM * qmax) - offset

SDR is display-encoded in [0, 1]; HDR is linear light, 1.0 = SDR white; GM is linear in the gain.
Every function takes float16, bfloat16 or float32, returns float32 and leaves its inputs alone.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .errors import GainMapError

logger = logging.getLogger(__name__)

_LIMITS = {"qmax": 65535.0, "gamma": 10.0, "offset": 1.0}


@dataclass(frozen=True)
class GainMapSpec:
    """Constants of Eq. (1).

    Args:
        qmax: gain added to 1 where the gain map is 1, in (0, 65535].
        gamma: power that linearises the SDR picture, in (0, 10]; the paper uses a pure 2.2.
        offset: keeps black liftable, linear, 1.0 = SDR white, in (0, 1].

    Raises:
        GainMapError: a constant is not a number in its range.
    """

    qmax: float = 99.0
    gamma: float = 2.2
    offset: float = 1 / 64

    def __post_init__(self) -> None:
        for name, limit in _LIMITS.items():
            value = getattr(self, name)
            if not (isinstance(value, (int, float)) and 0 < value <= limit):
                raise GainMapError(f"{name} is {value!r}; expected a number above 0 and at most {limit:g}")

    @property
    def floor(self) -> float:
        """The gain map whose gain is zero."""
        return -1 / self.qmax


def merge_hdr(*, sdr: Tensor, gain_map: Tensor, spec: GainMapSpec) -> Tensor:
    """Eq. (1): an SDR picture and its gain map become HDR.

    Args:
        sdr: [B,3,H,W] display-encoded, clamped to [0, 1].
        gain_map: [B,1|3,H,W], clamped to [-1/qmax, 1]; below 0 it darkens. A batch of 1 is shared.
        spec: constants of Eq. (1).

    Returns:
        [B,3,H,W] linear, 1.0 = SDR white, at least 0, at most (1 + offset)(1 + qmax) - offset.

    Raises:
        GainMapError: the shapes do not fit, or a tensor holds integers.
    """
    _check(sdr, gain_map, "gain_map", channels=(1, 3))
    base = _linear_plus_offset(sdr, spec)
    gain = _gain(gain_map, spec)
    hdr = base.mul_(gain) if base.shape[0] >= gain.shape[0] else base * gain
    return hdr.sub_(spec.offset).clamp_(min=0.0)


def extract_gain_map(*, sdr: Tensor, hdr: Tensor, spec: GainMapSpec, darken: bool = False) -> Tensor:
    """Inverse of Eq. (1): the gain map that turns `sdr` into `hdr`.

    Args:
        sdr: [B,3,H,W] display-encoded, clamped to [0, 1].
        hdr: [B,3,H,W] linear, 1.0 = SDR white.
        spec: constants of Eq. (1).
        darken: keep gains below 1 as negative values, down to -1/qmax.

    Returns:
        [B,3,H,W] in [0, 1], or in [-1/qmax, 1] with `darken`.

    Raises:
        GainMapError: the shapes do not fit, or a tensor holds integers.
    """
    _check(sdr, hdr, "hdr", channels=(3,))
    base = _linear_plus_offset(sdr, spec)
    lifted = hdr.to(torch.float32, copy=True).add_(spec.offset)
    gain = lifted.div_(base) if lifted.shape[0] >= base.shape[0] else lifted / base
    return gain.sub_(1.0).div_(spec.qmax).clamp_(spec.floor if darken else 0.0, 1.0)


def restate_gain_map(*, sdr: Tensor, gain_map: Tensor, spec: GainMapSpec, wanted: GainMapSpec) -> Tensor:
    """The gain map that gives the same HDR under other constants.

    Args:
        sdr: [B,3,H,W] display-encoded, clamped to [0, 1].
        gain_map: [B,3,H,W] in [-1/qmax, 1].
        spec: constants of Eq. (1) the map was made with.
        wanted: those it is to be used with; gains beyond its qmax are cut.

    Returns:
        [B,3,H,W] in [-1/qmax, 1]; the map itself where the constants are equal.

    Raises:
        GainMapError: the shapes do not fit, or a tensor holds integers.
    """
    if spec == wanted:
        return gain_map
    hdr = merge_hdr(sdr=sdr, gain_map=gain_map, spec=spec)
    return extract_gain_map(sdr=sdr, hdr=hdr, spec=wanted, darken=True)


def fitting_spec(*, sdr: Tensor, hdr: Tensor) -> GainMapSpec:
    """Eq. (1) with the paper's gamma and offset and the smallest qmax, at least 1, that loses no highlight.

    A warning in the log tells of highlights beyond the largest qmax, 65535, which the gain map then cuts.

    Args:
        sdr: [B,3,H,W] display-encoded, clamped to [0, 1].
        hdr: [B,3,H,W] linear, 1.0 = SDR white; NaN and infinite values are not counted.

    Raises:
        GainMapError: the shapes do not fit, or a tensor holds integers.
    """
    _check(sdr, hdr, "hdr", channels=(3,))
    spec = GainMapSpec()
    gain = (hdr.float() + spec.offset) / _linear_plus_offset(sdr, spec)
    needed, limit = gain.nan_to_num(posinf=0.0).amax().item() - 1.0, _LIMITS["qmax"]
    if needed > limit:
        logger.warning("highlights need a qmax of %.6g; their gain map is cut at %g", needed, limit)
    return replace(spec, qmax=min(max(1.0, needed), limit))


def scale_gain(*, gain_map: Tensor, strength: float | Tensor, spec: GainMapSpec) -> Tensor:
    """Scale the gain in stops: gain -> gain^strength.

    Args:
        gain_map: [B,1|3,H,W] in [-1/qmax, 1].
        strength: 0 = no gain, 1 = unchanged; a tensor broadcastable to the map acts as a mask.
        spec: constants of Eq. (1).

    Returns:
        Gain map of the broadcast shape, clamped to [-1/qmax, 1].
    """
    gain = _gain(gain_map, spec)
    return (gain.pow(strength) - 1.0).div_(spec.qmax).clamp_(spec.floor, 1.0)


def cap_gain(*, gain_map: Tensor, stops: float, spec: GainMapSpec) -> Tensor:
    """Limit the gain to `stops` above SDR white.

    All channels of a pixel are scaled by the same factor in the log domain, so that a capped highlight
    keeps the relation between its channels.

    Args:
        gain_map: [B,1|3,H,W] in [-1/qmax, 1].
        stops: largest log2 gain, at least 0.
        spec: constants of Eq. (1).

    Raises:
        GainMapError: `stops` is negative.
    """
    if not stops >= 0:
        raise GainMapError(f"stops is {stops}; expected a headroom of at least 0 stops above SDR white")
    peak = _gain(gain_map, spec).amax(dim=1, keepdim=True).clamp_(min=1.0).log2_()
    strength = torch.where(peak > stops, stops / peak, 1.0)
    return scale_gain(gain_map=gain_map, strength=strength, spec=spec)


def blend_gain(*, gain_map: Tensor, other: Tensor, share: Tensor, spec: GainMapSpec) -> Tensor:
    """Between two gain maps, in stops.

    Args:
        gain_map: [B,1|3,H,W] in [-1/qmax, 1].
        other: of the same shape and range.
        share: [B,1,H,W] in [0, 1]; 0 = `gain_map`, 1 = `other`.
        spec: constants of Eq. (1).

    Returns:
        Gain map of the same shape, clamped to [-1/qmax, 1].
    """
    gain = _gain(gain_map, spec) ** (1 - share) * _gain(other, spec) ** share
    return ((gain - 1) / spec.qmax).clamp(spec.floor, 1.0)


def limit_darkening(*, sdr: Tensor, gain_map: Tensor, darkest: float, spec: GainMapSpec) -> Tensor:
    """Keep dark colours from being crushed to black by the offset of Eq. (1).

    Where the SDR value is far below the offset, a gain just under 1 already takes away more light than there
    is. Every channel keeps at least `darkest` of its own linear light.

    Args:
        sdr: [B,3,H,W] display-encoded, clamped to [0, 1].
        gain_map: [B,1|3,H,W] in [-1/qmax, 1].
        darkest: share of its light that a channel keeps, in [0, 1].
        spec: constants of Eq. (1).

    Returns:
        [B,3,H,W], nowhere below `gain_map`.

    Raises:
        GainMapError: the shapes do not fit, or a tensor holds integers.
    """
    _check(sdr, gain_map, "gain_map", channels=(1, 3))
    base = _linear_plus_offset(sdr, spec)
    lowest = (base - spec.offset).mul_(darkest - 1.0).div_(base).div_(spec.qmax)
    return torch.maximum(gain_map.to(torch.float32), lowest)


def _gain(gain_map: Tensor, spec: GainMapSpec) -> Tensor:
    return gain_map.to(torch.float32, copy=True).clamp_(spec.floor, 1.0).mul_(spec.qmax).add_(1.0)


def _linear_plus_offset(sdr: Tensor, spec: GainMapSpec) -> Tensor:
    return sdr.to(torch.float32, copy=True).clamp_(0.0, 1.0).pow_(spec.gamma).add_(spec.offset)


def _check(sdr: Tensor, other: Tensor, name: str, channels: tuple[int, ...]) -> None:
    for label, tensor, allowed in (("sdr", sdr, (3,)), (name, other, channels)):
        if not tensor.is_floating_point():
            raise GainMapError(f"{label} holds {tensor.dtype}; divide integer pixels by their maximum first")
        if tensor.ndim != 4 or tensor.shape[1] not in allowed:
            wanted = " or ".join(str(count) for count in allowed)
            raise GainMapError(f"{label} has shape {list(tensor.shape)}; expected [B,{wanted},H,W]")
    if sdr.shape[2:] != other.shape[2:]:
        raise GainMapError(
            f"{name} is {other.shape[3]}x{other.shape[2]} but sdr is {sdr.shape[3]}x{sdr.shape[2]} pixels; "
            f"resize {name} to the size of the SDR picture first"
        )
    if sdr.shape[0] != other.shape[0] and 1 not in (sdr.shape[0], other.shape[0]):
        raise GainMapError(
            f"{name} has a batch of {other.shape[0]} but sdr a batch of {sdr.shape[0]}; "
            "use equal batches, or a batch of 1 on either side"
        )
