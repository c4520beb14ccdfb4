"""Reads HDR video frame by frame."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from ...errors import ImageReadError
from ..frames import Tags, frame_picture, opened, picture_stream, tags_of
from ..image import HDRImage, reading
from ..iso_boxes import is_cut
from ..sdr_base import turn
from ..signal import HLG, PQ

_FULL_RANGE = 2
# Whether columns become rows, then whether left and right, and top and bottom are swapped.
_ORIENTATIONS = {
    (False, False, False): 1,
    (False, True, False): 2,
    (False, True, True): 3,
    (False, False, True): 4,
    (True, False, False): 5,
    (True, True, False): 6,
    (True, True, True): 7,
    (True, False, True): 8,
}
# ITU-T H.273 table 3, for messages.
_CURVES = {1: "BT.709", 2: "not stated", 6: "BT.601", 8: "linear", 13: "sRGB", 14: "BT.2020 SDR"}


class VideoInfo(NamedTuple):
    """frames: those stored, counted where the container does not say; a trimmed video shows fewer. fps: 0
    where unknown. transfer: the number of the stream's curve in ITU-T H.273."""

    width: int
    height: int
    frames: int
    fps: Fraction
    transfer: int


def describe_video(path: str | os.PathLike[str]) -> VideoInfo:
    """What a video says about itself, without decoding more of it than a frame.

    Raises:
        ImageReadError: not a video, damaged, or too large.
    """
    with _reading(path) as container:
        stream = picture_stream(container)
        context = stream.codec_context
        fps = Fraction(stream.average_rate or stream.guessed_rate or 0)
        width, height, transfer = context.width, context.height, int(context.color_trc)
        count = stream.frames or sum(packet.size > 0 for packet in container.demux(stream))
    if transfer not in (PQ, HLG):
        transfer = _first_transfer(path)
    return VideoInfo(width, height, count, fps, transfer)


def _first_transfer(path: str | os.PathLike[str]) -> int:
    """The curve of the first frame. Broadcast HLG calls itself SDR in the stream's header, for old receivers,
    and HLG in each frame."""
    with _reading(path) as container:
        stream = picture_stream(container)
        stated = tags_of(stream.codec_context)
        frame = next(container.decode(stream), None)
        return (stated if frame is None else tags_of(frame).or_else(stated)).transfer


def check_is_hdr(info: VideoInfo, path: str | os.PathLike[str]) -> None:
    """Refuse SDR video, whose picture would be taken for HDR.

    Raises:
        ImageReadError: the video's curve is neither PQ nor HLG.
    """
    if info.transfer not in (PQ, HLG):
        curve = _CURVES.get(info.transfer, f"number {info.transfer} of H.273")
        raise ImageReadError(
            f"{os.path.basename(path)}: its transfer curve is {curve}; expected PQ or HLG. It is an SDR "
            "video, or its colour tags are lost: read it with ComfyUI's own Load Video"
        )


def decode_frames(
    path: str | os.PathLike[str], *, white_nits: float = 203.0, start: int = 0
) -> Iterator[HDRImage]:
    """The frames of a video from number `start` on, one at a time, upright, by their colour tags.

    `metadata` has "time" in seconds. Frames that are stored but not shown, as in trimmed videos, are not
    counted.

    Raises:
        ImageReadError: not a video, damaged, truncated, too large, of an unsupported pixel format, or it
            ends before `start`.
    """
    with _reading(path) as container:
        # Some decoders forget what the container states once they have seen a frame that does not.
        stream = picture_stream(container)
        count, stated_tags = 0, tags_of(stream.codec_context)
        for frame in container.decode(stream):
            count += 1
            if count > start:
                tags = _tags(frame, stated_tags)
                picture = frame_picture(frame, tags, white_nits=white_nits)
                turn(picture, _orientation(frame))
                picture.metadata |= {"format": "video", "time": frame.time}
                yield picture
        # Trimmed videos store frames that are not shown: those before the first, and those that refer to
        # what was cut away. Fewer than stored are a damage only where the file ends too early.
        stored = max(stream.frames, start + 1)
        if count <= start or (count < stored and is_cut(path)):
            raise ImageReadError(f"ends after {count} of {stored} frames")


@contextmanager
def _reading(path: str | os.PathLike[str]) -> Iterator[Any]:
    """The open container; every error names the file."""
    try:
        with reading("video"), opened(os.fspath(path)) as container:
            yield container
    except ImageReadError as error:
        raise ImageReadError(f"{os.path.basename(path)}: {error}") from error


def _tags(frame: Any, stated: Tags) -> Tags:
    """The tags of a frame and, where it has none, of its stream. FFmpeg writes full-range RGB but marks it
    as limited."""
    tags = tags_of(frame).or_else(stated)
    return tags._replace(range=_FULL_RANGE) if frame.format.name.startswith("gbr") else tags


def _orientation(frame: Any) -> int:
    """The Exif orientation that stands for a frame's display matrix, by which phones say how they were held
    and selfies that they are mirrored: x' = a x + c y, y' = b x + d y in ISO/IEC 14496-12, 6.2.2."""
    side = next((side for side in frame.side_data if side.type.name == "DISPLAYMATRIX"), None)
    if side is None:
        return 1
    a, b, _, c, d = np.frombuffer(bytes(side), np.int32)[:5].astype(np.int64)
    swapped = abs(b) + abs(c) > abs(a) + abs(d)
    across, down = (c, b) if swapped else (a, d)
    return _ORIENTATIONS[bool(swapped), bool(across < 0), bool(down < 0)]
