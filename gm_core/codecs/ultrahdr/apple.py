"""Apple's gain maps before ISO 21496-1: the headroom hides in XMP or in the camera's maker note."""

from __future__ import annotations

import math
import struct

from .gain_map_metadata import GainMapMetadata, same

_SIGNATURE = b"Apple iOS\0"
_FIRST_ENTRY = 16
_SIGNED_RATIONAL = 10
_HEADROOM_TAG, _GAIN_TAG = 33, 48


def apple_metadata(headroom: float, maker_note: bytes) -> GainMapMetadata | None:
    """The parameters of an Apple gain map, or None where its headroom is not stated.

    headroom: linear, from the map's XMP; 0 where it has none, then the maker note's two numbers decide
    (developer.apple.com, "Applying Apple HDR effect to your photos").
    """
    stops = math.log2(headroom) if headroom > 1 else _maker_note_stops(maker_note)
    if not 0 < stops <= 16:
        return None
    zero = same(0.0)
    return GainMapMetadata(
        minimum=zero,
        maximum=same(stops),
        offset_sdr=zero,
        offset_hdr=zero,
        capacity_max=stops,
        source="apple",
    )


def _maker_note_stops(note: bytes) -> float:
    values = _signed_rationals(note)
    if _HEADROOM_TAG not in values or _GAIN_TAG not in values:
        return 0.0
    headroom, gain = values[_HEADROOM_TAG], values[_GAIN_TAG]
    if headroom < 1:
        return -20 * gain + 1.8 if gain <= 0.01 else -0.101 * gain + 1.601
    return -70 * gain + 3.0 if gain <= 0.01 else -0.303 * gain + 2.303


def _signed_rationals(note: bytes) -> dict[int, float]:
    """Tag to value of the single signed rationals in the note; offsets count from its start."""
    values: dict[int, float] = {}
    if not note.startswith(_SIGNATURE):
        return values
    try:
        (count,) = struct.unpack_from(">H", note, _FIRST_ENTRY - 2)
        for index in range(min(count, 200)):
            entry = _FIRST_ENTRY + 12 * index
            tag, kind, length, offset = struct.unpack_from(">HHII", note, entry)
            if kind == _SIGNED_RATIONAL and length == 1:
                numerator, denominator = struct.unpack_from(">ii", note, offset)
                values[tag] = numerator / denominator if denominator else 0.0
    except struct.error:
        return {}
    return values
