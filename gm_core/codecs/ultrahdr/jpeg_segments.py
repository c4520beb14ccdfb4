"""The marker segments of a JPEG stream (ITU-T T.81 annex B): split, search, write."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from ...errors import ImageReadError, ImageWriteError

EOI, SOS = 0xD9, 0xDA
APP0, APP1, APP2 = 0xE0, 0xE1, 0xE2
EXIF = b"Exif\0\0"
XMP = b"http://ns.adobe.com/xap/1.0/\0"
ICC = b"ICC_PROFILE\0"
ISO_GAIN_MAP = b"urn:iso:std:iso:ts:21496:-1\0"
MPF = b"MPF\0"

_STANDALONE = {0x01, *range(0xD0, 0xD8)}
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_MAX_PAYLOAD = 65533
# In entropy-coded data FF is followed by 00 (stuffing) or a restart marker; anything else ends the scan.
_MARKER = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")


class Segment(NamedTuple):
    """One marker segment: its marker code, its payload without length, and where the payload starts."""

    marker: int
    payload: bytes
    position: int


class Jpeg(NamedTuple):
    """segments: all before the first scan. scan: offset of the SOS marker. end: offset behind EOI."""

    segments: list[Segment]
    scan: int
    end: int

    def payloads(self, marker: int, prefix: bytes) -> list[bytes]:
        """What follows `prefix` in each segment of this kind."""
        found = (s.payload for s in self.segments if s.marker == marker and s.payload.startswith(prefix))
        return [payload[len(prefix) :] for payload in found]

    def size(self) -> tuple[int, int, int]:
        """Width, height and number of components from the frame header.

        Raises:
            ImageReadError: there is none.
        """
        for segment in self.segments:
            if segment.marker in _FRAMES and len(segment.payload) >= 6:
                payload = segment.payload
                return int.from_bytes(payload[3:5], "big"), int.from_bytes(payload[1:3], "big"), payload[5]
        raise ImageReadError("JPEG: no frame header before the first scan")

    def icc_profile(self) -> bytes:
        """The ICC profile joined from its chunks in order, empty if there is none."""
        chunks = sorted(self.payloads(APP2, ICC), key=lambda chunk: chunk[:1])
        return b"".join(chunk[2:] for chunk in chunks)


def parse_jpeg(data: bytes, start: int = 0) -> Jpeg:
    """Split the JPEG stream at `start`.

    Raises:
        ImageReadError: no JPEG there, or a segment reaches beyond the data.
    """
    if data[start : start + 3] != b"\xff\xd8\xff":
        raise ImageReadError(f"JPEG: no start marker at byte {start}")
    segments, position = [], start + 2
    while True:
        marker, position = _next_marker(data, position)
        if marker in (SOS, EOI):
            return Jpeg(segments, position - 2, _find_end(data, position - 2))
        segment = _read_segment(data, marker, position)
        segments.append(segment)
        position += 2 + len(segment.payload)


def build_jpeg(segments: Iterable[tuple[int, bytes]], scan: bytes) -> bytes:
    """A JPEG stream of these (marker, payload) segments and everything from the first SOS on.

    Raises:
        ImageWriteError: a payload is longer than a segment can be.
    """
    parts = [b"\xff\xd8"]
    for marker, payload in segments:
        if len(payload) > _MAX_PAYLOAD:
            raise ImageWriteError(
                f"JPEG: {len(payload)} bytes do not fit one segment (at most {_MAX_PAYLOAD})"
            )
        parts += [bytes((0xFF, marker)), (len(payload) + 2).to_bytes(2, "big"), payload]
    return b"".join([*parts, scan])


def _next_marker(data: bytes, position: int) -> tuple[int, int]:
    """The next marker that is not standalone, and the offset behind it."""
    while position + 1 < len(data) and data[position] == 0xFF:
        code = data[position + 1]
        if code == 0xFF:
            position += 1
        elif code in _STANDALONE:
            position += 2
        else:
            return code, position + 2
    raise ImageReadError(f"JPEG: no marker at byte {position}; the file is truncated or damaged")


def _read_segment(data: bytes, marker: int, position: int) -> Segment:
    length = int.from_bytes(data[position : position + 2], "big")
    if length < 2 or position + length > len(data):
        raise ImageReadError(f"JPEG: segment {marker:02X} at byte {position - 2} reaches beyond the file")
    return Segment(marker, data[position + 2 : position + length], position + 2)


def _find_end(data: bytes, position: int) -> int:
    """The offset behind EOI, or the end of the data where EOI is missing."""
    while True:
        match = _MARKER.search(data, position)
        if match is None:
            return len(data)
        marker, position = data[match.end() - 1], match.end()
        if marker == EOI:
            return position
        if marker not in _STANDALONE:
            position += max(2, int.from_bytes(data[position : position + 2], "big"))
