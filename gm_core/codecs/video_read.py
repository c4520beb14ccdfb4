"""Reads HDR video frame by frame."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ..errors import ImageReadError
from .frames import frame_picture, opened
from .image import HDRImage, reading


def decode_frames(path: str | os.PathLike[str], *, white_nits: float = 203.0) -> Iterator[HDRImage]:
    """The frames of a video, one at a time, by their colour tags; `metadata` has "time" in seconds.

    Raises:
        ImageReadError: not a video, damaged, too large, or of an unsupported pixel format.
    """
    with reading(f"video {os.fspath(path)}"), opened(os.fspath(path)) as container:
        count = 0
        for frame in container.decode(video=0):
            picture = frame_picture(frame, white_nits=white_nits)
            picture.metadata |= {"format": "video", "time": frame.time}
            yield picture
            count += 1
        stated = max(container.streams.video[0].frames, 1)
        if count < stated:
            raise ImageReadError(f"video {os.fspath(path)}: ends after {count} of {stated} frames")
