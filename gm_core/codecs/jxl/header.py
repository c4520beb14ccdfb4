"""Size, depth and colour tags at the start of a JPEG XL codestream (ISO/IEC 18181-1, D.2 and E.2)."""

from __future__ import annotations

from typing import NamedTuple

from ...color import PRIMARIES
from ...errors import ImageReadError
from ..iso_boxes import read_boxes

CODESTREAM = b"\xff\x0a"
CONTAINER = b"\0\0\0\x0cJXL \r\n\x87\n"
_RATIOS = (None, (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_HEADER_BYTES = 4096
_PART_NUMBER = 4
_DEFAULT_BITS = 8
_CUSTOM, _GREY, _XYB = 2, 1, 2
_ALPHA, _SPOT, _CFA = 0, 2, 5
_BT709, _D65, _SRGB_CURVE = 1, 1, 13
_WHITES = {1: PRIMARIES["bt709"].white, 10: (1 / 3, 1 / 3), 11: (0.314, 0.351)}
_PRIMARIES = {
    number: tuple(value for point in PRIMARIES[name][:3] for value in point)
    for number, name in ((1, "bt709"), (9, "bt2020"), (11, "p3"))
}


class Colour(NamedTuple):
    """chromaticities: x, y of red, green, blue and white. transfer: number of the curve in ITU-T H.273, or
    None where `gamma`, the exponent from signal to light, says it."""

    chromaticities: tuple[float, ...]
    transfer: int | None
    gamma: float | None = None


class Header(NamedTuple):
    """bits: of a sample, as the codestream states them. premultiplied: whether the colours are multiplied by
    alpha. colour: None where only an ICC profile tells it."""

    width: int
    height: int
    bits: int
    premultiplied: bool
    colour: Colour | None


SRGB = Colour((*_PRIMARIES[_BT709], *_WHITES[_D65]), _SRGB_CURVE)


def read_header(data: bytes) -> Header:
    """The header of a codestream, or of the one inside a container.

    Raises:
        ImageReadError: there is none, or it is cut off.
    """
    stream = data[: _HEADER_BYTES + 2] if data.startswith(CODESTREAM) else _in_container(data)
    if len(stream) < 4 or not stream.startswith(CODESTREAM) or len(data) < 16:
        raise ImageReadError("JPEG XL: no codestream; the file is truncated or damaged")
    bits = _Bits(stream[2:])
    width, height = bits.size()
    return Header(width, height, *_metadata(bits))


def _in_container(data: bytes) -> bytes:
    """The start of the codestream, which may be cut into parts and have other boxes before it."""
    stream = b""
    for box in read_boxes(data, cut=True):
        if box.kind == b"jxlc":
            return box.payload[: _HEADER_BYTES + 2]
        if box.kind == b"jxlp":
            stream += box.payload[_PART_NUMBER:]
        if len(stream) > _HEADER_BYTES:
            break
    return stream


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

    def point(self) -> tuple[float, float]:
        """Chromaticity x, y, in millionths."""
        return self._millionths(), self._millionths()

    def _millionths(self) -> float:
        value = self.choice((0, 19), (524288, 19), (1048576, 20), (2097152, 21))
        return ((value >> 1) ^ -(value & 1)) / 1e6


def _metadata(bits: _Bits) -> tuple[int, bool, Colour | None]:
    """Bits of a sample, whether it is multiplied by alpha, and the colours."""
    if bits.take(1):
        return _DEFAULT_BITS, False, SRGB
    if bits.take(1):
        _skip_extra_fields(bits)
    depth = _bit_depth(bits)
    bits.take(1)
    count = bits.choice((0, 0), (1, 0), (2, 4), (1, 12))
    alphas = [_alpha_association(bits) for _ in range(count)]
    bits.take(1)
    # The first alpha is the picture's.
    premultiplied = next((alpha for alpha in alphas if alpha is not None), False)
    return depth, premultiplied, SRGB if bits.take(1) else _colour(bits)


def _colour(bits: _Bits) -> Colour | None:
    has_profile, space = bits.take(1), bits.enum()
    if has_profile or space >= _XYB:
        return None
    kind = bits.enum()
    white = bits.point() if kind == _CUSTOM else _WHITES.get(kind, _WHITES[_D65])
    primaries = _PRIMARIES[_BT709]
    if space != _GREY:
        kind = bits.enum()
        custom = kind == _CUSTOM
        primaries = _three_points(bits) if custom else _PRIMARIES.get(kind, _PRIMARIES[_BT709])
    if bits.take(1):
        return Colour((*primaries, *white), None, 1e7 / max(bits.take(24), 1))
    return Colour((*primaries, *white), bits.enum())


def _three_points(bits: _Bits) -> tuple[float, ...]:
    return (*bits.point(), *bits.point(), *bits.point())


def _skip_extra_fields(bits: _Bits) -> None:
    """Orientation, intrinsic size, preview and animation."""
    bits.take(3)
    if bits.take(1):
        bits.size()
    if bits.take(1):
        sides = (
            ((16, 0), (32, 0), (1, 5), (33, 9)) if bits.take(1) else ((1, 6), (65, 8), (321, 10), (1345, 12))
        )
        bits.choice(*sides)
        if not bits.take(3):
            bits.choice(*sides)
    if bits.take(1):
        bits.choice((100, 0), (1000, 0), (1, 10), (1, 30))
        bits.choice((1, 0), (1001, 0), (1, 8), (1, 10))
        bits.choice((0, 0), (0, 3), (0, 16), (0, 32))
        bits.take(1)


def _bit_depth(bits: _Bits) -> int:
    """Bits of a sample, whether it is a float or an integer."""
    if not bits.take(1):
        return bits.choice((8, 0), (10, 0), (12, 0), (1, 6))
    depth = bits.choice((32, 0), (16, 0), (24, 0), (1, 6))
    bits.take(4)
    return depth


def _alpha_association(bits: _Bits) -> bool | None:
    """Whether colours are multiplied by the next extra channel; None where that is no alpha."""
    if bits.take(1):
        return False
    kind = bits.enum()
    _bit_depth(bits)
    bits.choice((0, 0), (3, 0), (4, 0), (1, 3))
    bits.take(8 * bits.choice((0, 0), (0, 4), (16, 5), (48, 10)))
    if kind == _ALPHA:
        return bool(bits.take(1))
    if kind == _SPOT:
        bits.take(64)
    elif kind == _CFA:
        bits.choice((1, 0), (0, 2), (3, 4), (19, 8))
    return None
