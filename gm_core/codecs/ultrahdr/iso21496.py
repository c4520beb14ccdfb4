"""Binary gain map metadata of ISO 21496-1:2025, annex C.2, as it stands in a JPEG APP2 segment."""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction

from ...errors import ImageReadError
from .gain_map_metadata import GainMapMetadata, same

# What the primary picture carries: minimum and writer version 0, no parameters.
PRIMARY_VERSION = bytes(4)

_PER_CHANNEL, _USE_BASE, _COMMON_DENOMINATOR, _BACKWARD = 0x80, 0x40, 0x08, 0x04
_DENOMINATOR = 2**20


def exact(value: float) -> float:
    """The nearest value that the binary metadata holds without rounding, a multiple of 2^-20."""
    return round(value * _DENOMINATOR) / _DENOMINATOR


def build_iso(metadata: GainMapMetadata) -> bytes:
    """The parameters behind the ISO 21496-1 name; one set of values unless the channels differ.

    Values are rounded to 2^-20; use `exact` beforehand where the pixels depend on them.
    """
    flags = _USE_BASE if metadata.use_base_primaries else 0
    flags |= _PER_CHANNEL if metadata.per_channel else 0
    parts = [struct.pack(">HHB", 0, 0, flags), _ratio(metadata.capacity_min), _ratio(metadata.capacity_max)]
    for channel in range(3 if metadata.per_channel else 1):
        for values in (
            metadata.minimum,
            metadata.maximum,
            metadata.gamma,
            metadata.offset_sdr,
            metadata.offset_hdr,
        ):
            parts.append(_ratio(values[channel]))
    return b"".join(parts)


def read_iso(payload: bytes) -> GainMapMetadata:
    """The parameters of a payload behind the ISO 21496-1 name.

    Raises:
        ImageReadError: truncated, of an unknown version, with a zero denominator or unusable values,
            or the base is the HDR rendition.
    """
    try:
        minimum_version, _, flags = struct.unpack_from(">HHB", payload, 0)
        if minimum_version != 0:
            raise ImageReadError(f"ISO 21496-1 metadata: version {minimum_version} is not supported")
        common, numbers = (_common_ratios if flags & _COMMON_DENOMINATOR else _plain_ratios)(payload, flags)
    except (struct.error, ZeroDivisionError) as error:
        raise ImageReadError(f"ISO 21496-1 metadata: damaged ({error})") from error
    base_headroom, alternate_headroom = common
    if flags & _BACKWARD or base_headroom > alternate_headroom:
        raise ImageReadError("ISO 21496-1 metadata: the base is the HDR rendition, which is not supported")
    columns = [values if len(values) == 3 else same(values[0]) for values in zip(*numbers, strict=True)]
    return GainMapMetadata(
        *columns,
        capacity_min=base_headroom,
        capacity_max=alternate_headroom,
        use_base_primaries=bool(flags & _USE_BASE),
        source="iso",
    )


def _ratio(value: float) -> bytes:
    fraction = Fraction(round(value * _DENOMINATOR), _DENOMINATOR)
    return struct.pack(">iI", fraction.numerator, fraction.denominator)


Numbers = tuple[list[float], list[list[float]]]
# Sign of minimum, maximum, gamma, base offset, alternate offset.
_SIGNS = "iiIii"


def _plain_ratios(payload: bytes, flags: int) -> Numbers:
    def ratio(position: int, sign: str) -> float:
        numerator, denominator = struct.unpack_from(f">{sign}I", payload, position)
        return numerator / denominator

    return _layout(ratio, 5, 8, flags)


def _common_ratios(payload: bytes, flags: int) -> Numbers:
    (denominator,) = struct.unpack_from(">I", payload, 5)
    return _layout(lambda at, sign: struct.unpack_from(f">{sign}", payload, at)[0] / denominator, 9, 4, flags)


def _layout(read: Callable[[int, str], float], start: int, size: int, flags: int) -> Numbers:
    """The two headrooms, then five numbers for each channel, `size` bytes each from `start`."""
    headrooms = [read(start, "I"), read(start + size, "I")]
    first = start + 2 * size
    channels = 3 if flags & _PER_CHANNEL else 1
    numbers = [
        [read(first + (5 * channel + index) * size, sign) for index, sign in enumerate(_SIGNS)]
        for channel in range(channels)
    ]
    return headrooms, numbers
