"""Transfer curves and RGB primaries.

Curves work on tensors of any shape and return float32. Matrices are computed from chromaticities in
float64; white maps to white.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from .errors import GainMapError

PQ_PEAK_NITS = 10000.0
_PQ_M1, _PQ_M2 = 2610 / 16384, 2523 / 4096 * 128
_PQ_C1, _PQ_C2, _PQ_C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
_HLG_A, _HLG_B, _HLG_C = 0.17883277, 0.28466892, 0.55991073

# Sums and exposures of float32 values near its end, 3.4e38, are infinite, and differences of those NaN.
_LARGEST = 1e30


class Primaries(NamedTuple):
    """CIE 1931 (x, y) of the three primaries and the white point."""

    red: tuple[float, float]
    green: tuple[float, float]
    blue: tuple[float, float]
    white: tuple[float, float]


_D65 = (0.3127, 0.3290)
PRIMARIES: Mapping[str, Primaries] = MappingProxyType(
    {
        "bt709": Primaries((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), _D65),
        "p3": Primaries((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65),
        "bt2020": Primaries((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65),
        "acescg": Primaries((0.713, 0.293), (0.165, 0.830), (0.128, 0.044), (0.32168, 0.33767)),
    }
)


def srgb_to_linear(encoded: Tensor) -> Tensor:
    """sRGB EOTF, IEC 61966-2-1; values above 1 extend the power, negative ones the linear segment."""
    x = encoded.float()
    return torch.where(x <= 0.04045, x / 12.92, ((x.clamp(min=0.04045) + 0.055) / 1.055).pow(2.4))


def linear_to_srgb(linear: Tensor) -> Tensor:
    """Inverse of `srgb_to_linear`."""
    x = linear.float()
    return torch.where(x <= 0.0031308, x * 12.92, 1.055 * x.clamp(min=0.0031308).pow(1 / 2.4) - 0.055)


def pq_encode(nits: Tensor) -> Tensor:
    """SMPTE ST 2084 inverse EOTF: luminance in [0, 10000] nits -> code in [0, 1]; clamps."""
    y = (nits.float() / PQ_PEAK_NITS).clamp(0, 1).pow(_PQ_M1)
    return ((_PQ_C1 + _PQ_C2 * y) / (1 + _PQ_C3 * y)).pow(_PQ_M2)


def pq_decode(code: Tensor) -> Tensor:
    """SMPTE ST 2084 EOTF: code in [0, 1] -> luminance in [0, 10000] nits; clamps."""
    e = code.float().clamp(0, 1).pow(1 / _PQ_M2)
    return ((e - _PQ_C1).clamp(min=0) / (_PQ_C2 - _PQ_C3 * e)).pow(1 / _PQ_M1) * PQ_PEAK_NITS


def hlg_encode(scene: Tensor) -> Tensor:
    """BT.2100 HLG OETF: scene light in [0, 1] -> signal in [0, 1]; clamps."""
    e = scene.float().clamp(0, 1)
    bright = _HLG_A * (12 * e.clamp(min=1 / 12) - _HLG_B).log() + _HLG_C
    return torch.where(e <= 1 / 12, (3 * e).sqrt(), bright)


def hlg_decode(signal: Tensor) -> Tensor:
    """BT.2100 HLG inverse OETF: signal in [0, 1] -> scene light in [0, 1]; clamps."""
    e = signal.float().clamp(0, 1)
    return torch.where(e <= 0.5, e.square() / 3, (((e - _HLG_C) / _HLG_A).exp() + _HLG_B) / 12)


def rgb_to_xyz(name: str) -> Tensor:
    """[3,3] float64 matrix from linear RGB to CIE XYZ with Y = 1 at white, in the set's own white.

    Raises:
        GainMapError: `name` is not in `PRIMARIES`.
    """
    chroma = primaries(name)
    columns = torch.stack([_xyz(xy) for xy in chroma[:3]], dim=1)
    return columns * torch.linalg.solve(columns, _xyz(chroma.white))


def rgb_to_rgb(source: str, target: str) -> Tensor:
    """[3,3] float64 matrix between two linear RGB sets, whites adapted with Bradford.

    Raises:
        GainMapError: a name is not in `PRIMARIES`.
    """
    whites = _xyz(primaries(source).white), _xyz(primaries(target).white)
    adapted = bradford(*whites) @ rgb_to_xyz(source)
    return torch.linalg.solve(rgb_to_xyz(target), adapted)


def finite(rgb: Tensor) -> Tensor:
    """Linear light of any shape that matrices and exposures keep finite, float32.

    NaN and minus infinity become 0; the largest magnitude is 1e30.
    """
    return rgb.float().nan_to_num(posinf=_LARGEST, neginf=0.0).clamp_(-_LARGEST, _LARGEST)


def convert_primaries(rgb: Tensor, source: str, target: str) -> Tensor:
    """Linear RGB [B,3,H,W] from one set of primaries to another, float32, unclamped.

    Raises:
        GainMapError: a name is not in `PRIMARIES`, or `rgb` has another shape.
    """
    if source == target:
        primaries(source)
        return rgb.float()
    return apply_matrix(rgb, rgb_to_rgb(source, target))


def convert_sdr(sdr: Tensor, source: str, target: str) -> Tensor:
    """A picture with the sRGB curve [B,3,H,W] in [0,1] from one set of primaries to another, cut to [0,1].

    Raises:
        GainMapError: a name is not in `PRIMARIES`.
    """
    if source == target:
        primaries(source)
        return sdr.float()
    linear = convert_primaries(srgb_to_linear(sdr), source, target)
    return linear_to_srgb(linear.clamp(0, 1))


def apply_matrix(rgb: Tensor, matrix: Tensor) -> Tensor:
    """Column-vector product of a [C,3] matrix with the channels of [B,3,H,W], in float32.

    Plain multiply-adds: a matrix product may run in TF32 or in an autocast dtype, which costs colour.

    Raises:
        GainMapError: `rgb` has another shape.
    """
    if rgb.ndim != 4 or rgb.shape[1] != 3:
        raise GainMapError(f"rgb has shape {list(rgb.shape)}; expected [B,3,H,W], without alpha")
    x = rgb.float()
    weights = matrix.to(x)[:, :, None, None]
    out = x[:, :1] * weights[:, 0]
    for channel in (1, 2):
        out = torch.addcmul(out, x[:, channel : channel + 1], weights[:, channel])
    return out


def luminance(rgb: Tensor, name: str = "bt709") -> Tensor:
    """Relative luminance [B,1,H,W] of linear RGB [B,3,H,W]; 1.0 = white.

    Raises:
        GainMapError: `name` is not in `PRIMARIES`, or `rgb` has another shape.
    """
    return apply_matrix(rgb, rgb_to_xyz(name)[1:2])


def bradford(source: Tensor, target: Tensor) -> Tensor:
    """[3,3] float64 chromatic adaptation of CIE XYZ from one white [3] to another (Lam 1985)."""
    cone = torch.tensor(
        [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]], dtype=torch.float64
    )
    scale = (cone @ target) / (cone @ source)
    return torch.linalg.solve(cone, scale[:, None] * cone)


def primaries(name: str) -> Primaries:
    """The chromaticities called `name`.

    Raises:
        GainMapError: `name` is not in `PRIMARIES`.
    """
    if name not in PRIMARIES:
        raise GainMapError(f"primaries are {name!r}; expected one of {', '.join(PRIMARIES)}")
    return PRIMARIES[name]


def _xyz(xy: tuple[float, float]) -> Tensor:
    x, y = xy
    return torch.tensor([x / y, 1.0, (1 - x - y) / y], dtype=torch.float64)
