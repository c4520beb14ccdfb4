"""Reads AVIF by its colour tags or profile, whatever wrote it."""

from __future__ import annotations

import logging
import struct
from typing import Any

import numpy as np

from ...errors import ImageReadError
from ..frames import BT601, Tags, frame_codes, frame_picture, opened, tags_of
from ..image import HDRImage, check_size, divide_by_alpha, reading
from ..profiles import picture_of_profile
from ..sdr_base import crop, turn
from ..signal import UNSPECIFIED
from .items import Grid, Items, clean_aperture, orientation, read_items

logger = logging.getLogger(__name__)


def decode_avif(data: bytes) -> HDRImage:
    """An AVIF by its colour tags or profile: PQ and HLG as HDR, everything else as SDR.

    The picture is put together from its tiles, cut to its clean aperture and stands upright. A gain map in
    the file is not applied.

    Raises:
        ImageReadError: damaged, truncated, too large, or of an unsupported colour format.
    """
    with reading("AVIF"):
        items = read_items(data)
        if items is None:
            return _first_frame(data)
        if b"tmap" in items.kinds.values():
            logger.warning("an AVIF with a gain map: only its base picture is read")
        colours = items.colours(items.primary)
        frames, grid = _frames(data, items, items.primary)
        tags = _with_matrix(_stated(colours.get(b"nclx", b"")).or_else(tags_of(frames[0])))
        codes = _joined([frame_codes(frame, tags, centred=True) for frame in frames], grid)
        alpha = _alpha(data, items, codes.shape[:2])
        if alpha is not None and items.is_premultiplied():
            divide_by_alpha(codes, alpha)
            np.minimum(codes, 1, out=codes)
        profile = colours.get(b"prof") or colours.get(b"rICC") or b""
        picture = picture_of_profile(codes, profile, primaries=tags.primaries, transfer=tags.transfer)
        picture.alpha = alpha
        for box in items.properties.get(items.primary, []):
            turn(picture, orientation(box))
            if box.kind == b"clap":
                crop(picture, *clean_aperture(box.payload, picture.hdr.shape[1], picture.hdr.shape[0]))
        picture.metadata |= {"format": "avif", "bits": frames[0].format.components[0].bits}
        return picture


def _first_frame(data: bytes) -> HDRImage:
    """The first picture of a sequence."""
    with opened(data, "mov") as container:
        frame = next(container.decode(video=0), None)
        if frame is None:
            raise ImageReadError("no picture in the file")
        picture = frame_picture(frame, _with_matrix(tags_of(frame)), centred=True)
        picture.metadata |= {"format": "avif", "bits": frame.format.components[0].bits}
        return picture


def _frames(data: bytes, items: Items, item: int) -> tuple[list[Any], Grid | None]:
    """The decoded picture of an item, or its tiles and how they are put together."""
    grid = items.grid(item)
    wanted = [item] if grid is None else grid.tiles
    frames: dict[int, Any] = {}
    with opened(data, "mov") as container:
        streams = [stream for stream in container.streams.video if stream.id in wanted]
        if grid is not None:
            check_size(grid.width, grid.height, source="AVIF")
        for stream in streams:
            # The size alone counts: AV1 codes a plain picture of any size in a few hundred bytes.
            check_size(stream.codec_context.width, stream.codec_context.height, source="AVIF")
        for packet in container.demux(streams) if streams else ():
            for frame in packet.decode():
                frames.setdefault(packet.stream.id, frame)
    if any(number not in frames for number in wanted):
        raise ImageReadError("its picture cannot be decoded; the file is truncated or damaged")
    return [frames[number] for number in wanted], grid


def _stated(nclx: bytes) -> Tags:
    """The tags of an `nclx` property, which count before those of the coded picture."""
    if len(nclx) < 7:
        return Tags()
    primaries, transfer, matrix = struct.unpack_from(">HHH", nclx)
    return Tags(primaries, transfer, matrix, 2 if nclx[6] & 0x80 else 1)


def _with_matrix(tags: Tags) -> Tags:
    """With BT.601 where no matrix is stated, as libavif and browsers have it; of a video in PQ or HLG,
    players assume BT.2020."""
    return tags._replace(matrix=BT601) if tags.matrix == UNSPECIFIED else tags


def _joined(tiles: list[np.ndarray], grid: Grid | None) -> np.ndarray:
    if grid is None:
        return tiles[0]
    if any(tile.shape != tiles[0].shape for tile in tiles):
        raise ImageReadError("the tiles of its grid differ in size; the file is damaged")
    rows = [np.concatenate(tiles[at : at + grid.columns], 1) for at in range(0, len(tiles), grid.columns)]
    picture = np.concatenate(rows, 0)
    if picture.shape[0] < grid.height or picture.shape[1] < grid.width:
        raise ImageReadError("the tiles of its grid do not cover the picture; the file is damaged")
    return np.ascontiguousarray(picture[: grid.height, : grid.width])


def _alpha(data: bytes, items: Items, size: tuple[int, ...]) -> np.ndarray | None:
    """The transparency, if it is grey and as large as the picture."""
    item = items.alpha()
    if item is None:
        return None
    frames, grid = _frames(data, items, item)
    if any(not frame.format.name.startswith(("gray", "yuv")) for frame in frames):
        return None
    alpha = _joined([frame_codes(frame)[..., :1] for frame in frames], grid)
    return alpha[..., 0] if alpha.shape[:2] == size else None
