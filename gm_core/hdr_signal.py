"""HDR pictures as the signals that video and ComfyUI's own savers use: BT.2100 PQ and HLG, or linear.

HDR is linear, 1.0 = SDR white = `white_nits`, [B,3,H,W]. Signals are [B,3,H,W] in [0, 1] and BT.2020; the
linear signal is BT.709 and unclamped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from torch import Tensor

from .color import (
    PQ_PEAK_NITS,
    convert_primaries,
    hlg_decode,
    hlg_encode,
    luminance,
    pq_decode,
    pq_encode,
)
from .errors import GainMapError

HLG_PEAK_NITS = 1000.0
HLG_SYSTEM_GAMMA = 1.2


def hlg_signal(nits: Tensor) -> Tensor:
    """Light on the HLG reference display of 1000 nits, BT.2020 [B,3,H,W] -> HLG signal; clamps.

    BT.2100 table 5: the inverse of the OOTF, then the OETF.
    """
    display = nits.float().clamp(0, PQ_PEAK_NITS) / HLG_PEAK_NITS
    light = luminance(display, "bt2020")
    # Where there is no light at all, the power of it must not become infinite.
    scene = display * light.clamp(min=1e-12).pow(1 / HLG_SYSTEM_GAMMA - 1)
    return hlg_encode(scene)


def hlg_light(signal: Tensor, primaries: str = "bt2020") -> Tensor:
    """HLG signal in `primaries` -> light on the reference display in nits; inverse of `hlg_signal`.

    Raises:
        GainMapError: no such primaries.
    """
    scene = hlg_decode(signal)
    return scene * luminance(scene, primaries).pow(HLG_SYSTEM_GAMMA - 1) * HLG_PEAK_NITS


class _Signal(NamedTuple):
    primaries: str
    encode: Callable[[Tensor, float], Tensor]
    decode: Callable[[Tensor, float], Tensor]


SIGNALS: Mapping[str, _Signal] = MappingProxyType(
    {
        "HDR PQ": _Signal(
            "bt2020",
            lambda hdr, white: pq_encode(hdr * white),
            lambda signal, white: pq_decode(signal) / white,
        ),
        "HDR (HLG)": _Signal(
            "bt2020",
            lambda hdr, white: hlg_signal(hdr * white),
            lambda signal, white: hlg_light(signal) / white,
        ),
        "linear": _Signal("bt709", lambda hdr, white: hdr, lambda signal, white: signal),
    }
)


def encode_signal(hdr: Tensor, signal: str, *, primaries: str, white_nits: float = 203.0) -> Tensor:
    """HDR pictures as a signal.

    Args:
        hdr: [B,3,H,W] linear light in `primaries`, 1.0 = SDR white; may exceed what the signal holds.
        signal: a name in `SIGNALS`.
        primaries: a name in `gm_core.color.PRIMARIES`.
        white_nits: luminance of SDR white in cd/m2; not used for "linear".

    Returns:
        [B,3,H,W] in [0, 1] and BT.2020; for "linear" unclamped and BT.709.

    Raises:
        GainMapError: no such signal or primaries.
    """
    kind = _named(signal)
    return kind.encode(convert_primaries(hdr, primaries, kind.primaries), white_nits)


def decode_signal(coded: Tensor, signal: str, *, primaries: str, white_nits: float = 203.0) -> Tensor:
    """The inverse of `encode_signal`, with the same arguments; the result is in `primaries`.

    Raises:
        GainMapError: no such signal or primaries.
    """
    kind = _named(signal)
    return convert_primaries(kind.decode(coded, white_nits), kind.primaries, primaries)


def _named(signal: str) -> _Signal:
    if signal not in SIGNALS:
        raise GainMapError(f"signal is {signal!r}; expected one of {', '.join(SIGNALS)}")
    return SIGNALS[signal]
