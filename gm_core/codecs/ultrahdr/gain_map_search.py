"""Finds the gain map behind the primary picture of a JPEG file, also where the file's index is wrong."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from ...errors import ImageReadError
from . import jpeg_segments as jpeg
from .apple import apple_metadata
from .gain_map_metadata import GainMapMetadata
from .hdrgm_xmp import Xmp
from .iso21496 import PRIMARY_VERSION, read_iso
from .mpf import read_mpf

logger = logging.getLogger(__name__)

_START = b"\xff\xd8\xff"
_HDRGM = b"http://ns.adobe.com/hdr-gain-map/"
# What Adobe's and Apple's XMP of a gain map cannot do without. That of other pictures may be broken.
_XMP_NAMES = (b"hdr-gain-map", b"hdrgm", b"HDRGainMap")
_MAX_CANDIDATES = 64
# Tools that edit the primary after the index was made leave offsets wrong by less than this.
_SEARCH_BYTES = 4096


@dataclass(frozen=True)
class GainMapPicture:
    """A gain map in a file: the bytes of its JPEG stream, its segments, and how to apply it."""

    data: bytes
    stream: jpeg.Jpeg
    metadata: GainMapMetadata


def find_gain_map(data: bytes, primary: jpeg.Jpeg, maker_note: bytes) -> GainMapPicture | None:
    """The first picture behind the primary that has gain map metadata; None where there is none.

    maker_note: the primary's, which old Apple files need.

    Raises:
        ImageReadError: there is a gain map, but it is cut off or its metadata is unusable.
    """
    problem: ImageReadError | None = None
    tried: set[int] = set()
    listed = [*_indexed(data, primary), *_listed(data, primary)]
    for start in chain(listed, _scanned(data, primary)):
        if start in tried or len(tried) >= _MAX_CANDIDATES:
            continue
        tried.add(start)
        try:
            stream = jpeg.parse_jpeg(data, start)
        except ImageReadError as error:
            if start in listed and _is_announced(primary):
                problem = problem or ImageReadError(f"its gain map is cut off: {error}")
            continue
        try:
            metadata = _read_metadata(stream, maker_note)
        except ImageReadError as error:
            problem = problem or error
            continue
        if metadata is not None:
            return GainMapPicture(data[start : stream.end], stream, metadata)
    if problem is not None:
        raise problem
    if _is_announced(primary):
        logger.warning("the JPEG announces a gain map but holds none; it is read as SDR")
    return None


def _is_announced(primary: jpeg.Jpeg) -> bool:
    """Whether the primary picture says that a gain map follows."""
    packets = primary.payloads(jpeg.APP1, jpeg.XMP)
    return bool(primary.payloads(jpeg.APP2, jpeg.ISO_GAIN_MAP)) or any(_HDRGM in packet for packet in packets)


def _scanned(data: bytes, primary: jpeg.Jpeg) -> Iterator[int]:
    """Offsets where a second picture may start, where neither index nor directory tells."""
    start = data.find(_START, primary.end)
    while start >= 0:
        yield start
        start = data.find(_START, start + 1)


def _indexed(data: bytes, primary: jpeg.Jpeg) -> Iterator[int]:
    """By the picture index (MPF); a wrong offset is corrected to the next picture start near it."""
    for segment in primary.segments:
        if segment.marker != jpeg.APP2 or not segment.payload.startswith(jpeg.MPF):
            continue
        mark = segment.position + len(jpeg.MPF)
        try:
            pictures = read_mpf(segment.payload[len(jpeg.MPF) :])
        except ImageReadError as error:
            logger.warning("%s; looking for the gain map without it", error)
            continue
        for picture in pictures:
            if picture.offset:
                expected = mark + picture.offset
                yield from _near(data, expected, primary.end)


def _listed(data: bytes, primary: jpeg.Jpeg) -> Iterator[int]:
    """By the lengths in Google's container directory."""
    for packet in primary.payloads(jpeg.APP1, jpeg.XMP):
        try:
            item = Xmp(packet).gain_map_item()
        except ImageReadError as error:
            logger.warning("%s; looking for the gain map without it", error)
            continue
        if item is not None:
            yield from _near(data, primary.end + item[0], primary.end)


def _near(data: bytes, expected: int, first: int) -> Iterator[int]:
    if data[expected : expected + 3] == _START:
        yield expected
        return
    found = data.find(_START, max(first, expected - _SEARCH_BYTES), expected + _SEARCH_BYTES)
    if found >= 0:
        yield found


def _read_metadata(stream: jpeg.Jpeg, maker_note: bytes) -> GainMapMetadata | None:
    """ISO 21496-1 if it is readable, else hdrgm XMP, else Apple's; None if the picture has none of them."""
    problem: ImageReadError | None = None
    for payload in stream.payloads(jpeg.APP2, jpeg.ISO_GAIN_MAP):
        if len(payload) <= len(PRIMARY_VERSION):
            continue
        try:
            return read_iso(payload)
        except ImageReadError as error:
            problem = error
    for packet in stream.payloads(jpeg.APP1, jpeg.XMP):
        if not any(name in packet for name in _XMP_NAMES):
            continue
        xmp = Xmp(packet)
        metadata = xmp.hdrgm() or _apple(xmp, maker_note)
        if metadata is not None:
            return metadata
    if problem is not None:
        raise problem
    return None


def _apple(xmp: Xmp, maker_note: bytes) -> GainMapMetadata | None:
    headroom = xmp.apple_headroom()
    if headroom is None:
        return None
    metadata = apple_metadata(headroom, maker_note)
    if metadata is None:
        logger.warning("an Apple gain map without its headroom; the picture is read as SDR")
    return metadata
