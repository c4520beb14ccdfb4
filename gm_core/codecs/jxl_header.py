"""Size and colour tags at the start of a JPEG XL codestream (ISO/IEC 18181-1, D.2 and E.2)."""

from __future__ import annotations

from typing import NamedTuple

from ..errors import ImageReadError

CODESTREAM = b"\xff\x0a"
CONTAINER = b"\0\0\0\x0cJXL \r\n\x87\n"
_RATIOS = (None, (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_HEADER_BYTES = 4096
_CUSTOM, _GREY, _XYB = 2, 1, 2
_ALPHA, _SPOT, _CFA = 0, 2, 5
_SRGB = (1, 13)


class Header(NamedTuple):
    """tags: primaries and transfer curve as numbers of ITU-T H.273; None where the file has an ICC profile, a
    gamma or chromaticities of its own."""

    width: int
    height: int
    tags: tuple[int, int] | None


def read_header(data: bytes) -> Header:
    """The header of a codestream, or of the one inside a container.

    Raises:
        ImageReadError: there is none, or it is cut off.
    """
    start = 0 if data.startswith(CODESTREAM) else data.find(CODESTREAM, len(CONTAINER))
    if start < 0 or len(data) < start + 16:
        raise ImageReadError("JPEG XL: no codestream; the file is truncated or damaged")
    bits = _Bits(data[start + 2 : start + 2 + _HEADER_BYTES])
    width, height = bits.size()
    return Header(width, height, _tags(bits))


class _Bits:
    """Numbers of a little-endian bit stream; zeros behind its end."""

    def __init__(self, data: bytes) -> None:
        self.rest = int.from_bytes(data, "little")

    def take(self, count: int) -> int:
        value = self.rest & ((1 << count) - 1)
        self.rest >>= count
        return value

    def choice(self, *options: tuple[int, int]) -> int:
        """U32(): one of four (offset, extra bits)."""
        offset, extra = options[self.take(2)]
        return offset + self.take(extra)

    def enum(self) -> int:
        return self.choice((0, 0), (1, 0), (2, 4), (18, 6))

    def size(self) -> tuple[int, int]:
        small = self.take(1)
        height = self._side(small)
        ratio = _RATIOS[self.take(3)]
        return (self._side(small) if ratio is None else height * ratio[0] // ratio[1]), height

    def _side(self, small: int) -> int:
        return 8 * (self.take(5) + 1) if small else self.choice((1, 9), (1, 13), (1, 18), (1, 30))


def _tags(bits: _Bits) -> tuple[int, int] | None:
    if bits.take(1):
        return _SRGB
    if bits.take(1) and not _skip_extra_fields(bits):
        return None
    _skip_bit_depth(bits)
    bits.take(1)
    for _ in range(bits.choice((0, 0), (1, 0), (2, 4), (1, 12))):
        _skip_extra_channel(bits)
    bits.take(1)
    return _SRGB if bits.take(1) else _colour(bits)


def _colour(bits: _Bits) -> tuple[int, int] | None:
    has_profile, space = bits.take(1), bits.enum()
    if has_profile or space >= _XYB or bits.enum() == _CUSTOM:
        return None
    primaries = 1 if space == _GREY else bits.enum()
    if primaries == _CUSTOM or bits.take(1):
        return None
    return primaries, bits.enum()


def _skip_extra_fields(bits: _Bits) -> bool:
    """False where a preview or an animation follows, whose headers are not read."""
    bits.take(3)
    if bits.take(1):
        bits.size()
    return not bits.take(1) and not bits.take(1)


def _skip_bit_depth(bits: _Bits) -> None:
    if bits.take(1):
        bits.choice((32, 0), (16, 0), (24, 0), (1, 6))
        bits.take(4)
    else:
        bits.choice((8, 0), (10, 0), (12, 0), (1, 6))


def _skip_extra_channel(bits: _Bits) -> None:
    if bits.take(1):
        return
    kind = bits.enum()
    _skip_bit_depth(bits)
    bits.choice((0, 0), (3, 0), (4, 0), (1, 3))
    bits.take(8 * bits.choice((0, 0), (0, 4), (16, 5), (48, 10)))
    if kind == _ALPHA:
        bits.take(1)
    elif kind == _SPOT:
        bits.take(64)
    elif kind == _CFA:
        bits.choice((1, 0), (0, 2), (3, 4), (19, 8))
