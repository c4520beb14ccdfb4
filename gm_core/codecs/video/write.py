"""Writes HDR10 video: a stream of HDR pictures as HEVC Main 10 or AV1 in BT.2020 PQ with static metadata."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from types import MappingProxyType
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from ...color import PRIMARIES
from ...errors import ImageWriteError
from ..image import check_choice, check_hdr
from ..libraries import library
from ..signal import BT2020, BT2020_NCL, PQ, LightLevel, light_level, pq_codes
from .priorities import ordinary_priority

# SMPTE ST 2086 of the usual grading display: P3 within BT.2020, 0.0001 to 1000 cd/m2, more where needed.
_MASTERING_PRIMARIES, _MASTERING_PEAK, _MASTERING_BLACK = "p3", 1000.0, 0.0001
_KR, _KB = 0.2627, 0.0593
_INDEX_BYTES, _INDEX_BYTES_PER_FRAME, _INDEX_BYTES_PER_TEXT = 16384, 48, 64
_LIMITED_RANGE = 1
_NEVER_REORDERED = 2
"""Frames of a clip so short that x265, if it may reorder them, leaves their decoding times to chance."""
_SMALLEST_CU_TREE = 64
"""Shortest side at which x265 may weigh blocks by their future: it writes past its tables at 34 to 48 pixels
of width, which ends the whole process.
"""

Frames = Callable[[], Iterable[np.ndarray]]


class _Codec(NamedTuple):
    library: str
    tag: str
    parameters: Callable[[LightLevel, int, int], dict[str, str]]
    """Of the light levels, the crf and the shortest side."""
    smallest_side: int


def encode_hdr10(
    file: BinaryIO,
    frames: Frames,
    *,
    fps: Fraction | int | float = 24,
    codec: str = "hevc",
    primaries: str = "bt709",
    white_nits: float = 203.0,
    crf: int = 14,
    preset: str | None = None,
    metadata: Mapping[str, str] = MappingProxyType({}),
    progress: Callable[[int], None] = lambda done: None,
) -> LightLevel:
    """Write an MP4 whose memory use does not depend on its length.

    file: seekable binary file, for example the one `write_atomic` hands out.
    frames: called twice, gives the same pictures [H,W,3] each time, linear light in `primaries`,
        1.0 = `white_nits`: once to measure MaxCLL and MaxFALL, which the stream must carry from its first
        frame on, and once to encode. Even width and height, equal for all.
    codec: "hevc" (x265, Main 10, hvc1) or "av1" (SVT-AV1). crf: 0 (best) to 51 or 63. preset: the
        encoder's own; default "medium" or "8". metadata: texts by name, for example prompt and workflow.
    progress: called with the number of frames encoded.
    Returns the measured light levels in cd/m2 (average = MaxFALL).

    Raises:
        ImageWriteError: no frames, odd, unequal or too small sizes, non-finite pixels, an option out of
            range, metadata that an MP4 cannot name, or the encoder is missing or fails.
    """
    check_choice(codec, _CODECS, what="codec")
    check_choice(primaries, PRIMARIES, what="primaries")
    if wrong := [name for name in metadata if not is_metadata_name(name)]:
        raise ImageWriteError(f"{wrong[0]!r} cannot be the name of a text in an MP4")
    av = library("av", "writing video", ImageWriteError)
    count, size, level = _measure(frames, primaries, white_nits)
    if min(size) < _CODECS[codec].smallest_side:
        raise ImageWriteError(
            f"frames are {size[1]}x{size[0]}; {codec} takes sides of at least {_CODECS[codec].smallest_side}"
        )
    options = _CODECS[codec].parameters(level, crf, min(size)) | {"preset": preset or _PRESETS[codec]}
    try:
        with av.open(file, "w", format="mp4", options=_layout(count, metadata)) as container:
            container.metadata.update(metadata)
            stream = _add_stream(
                container, _CODECS[codec], size, Fraction(fps).limit_denominator(1001), options
            )
            if count <= _NEVER_REORDERED:
                stream.codec_context.max_b_frames = 0
            with ordinary_priority():
                stream.codec_context.open()
            for index, picture in enumerate(_checked(frames, size)):
                codes = pq_codes(picture, primaries=primaries, white_nits=white_nits)
                container.mux(stream.encode(_frame(av, codes, index)))
                progress(index + 1)
            container.mux(stream.encode(None))
    except av.FFmpegError as error:
        raise ImageWriteError(f"the {codec} encoder failed: {error}") from error
    return level


def is_metadata_name(name: str) -> bool:
    """Whether a text in an MP4 can have that name: UTF-8 without a zero byte."""
    try:
        return b"\0" not in name.encode()
    except UnicodeEncodeError:
        return False


def _layout(count: int, metadata: Mapping[str, str]) -> dict[str, str]:
    """The index goes before the pictures, so that players can start at once; its space is set aside."""
    texts = sum(
        len(name.encode()) + len(text.encode()) + _INDEX_BYTES_PER_TEXT for name, text in metadata.items()
    )
    size = _INDEX_BYTES + _INDEX_BYTES_PER_FRAME * count + texts
    return {"moov_size": str(size)} | ({"movflags": "use_metadata_tags"} if metadata else {})


def _measure(frames: Frames, primaries: str, white_nits: float) -> tuple[int, tuple[int, int], LightLevel]:
    """Number and size of the pictures, MaxCLL and MaxFALL."""
    count, size, peak, average = 0, (0, 0), 0.0, 0.0
    for picture in _checked(frames, None):
        size = size if count else picture.shape[:2]
        if picture.shape[:2] != size or size[0] % 2 or size[1] % 2:
            raise ImageWriteError(
                f"a frame of {picture.shape[:2]}; all must be equal, with even sides: {size}"
            )
        level = light_level(picture, primaries=primaries, white_nits=white_nits)
        peak, average = max(peak, level.max_cll), max(average, level.average)
        count += 1
    if not count:
        raise ImageWriteError("no frames to encode")
    return count, size, LightLevel(peak, average)


def _checked(frames: Frames, size: tuple[int, int] | None) -> Iterable[np.ndarray]:
    for index, picture in enumerate(frames()):
        checked = check_hdr(picture, what=f"frame {index}")
        if size is not None and checked.shape[:2] != size:
            raise ImageWriteError(
                f"frame {index} changed to {checked.shape[:2]} after it was measured as {size}"
            )
        yield checked


def _add_stream(container: Any, codec: _Codec, size: tuple[int, int], rate: Fraction, options: dict) -> Any:
    stream = container.add_stream(codec.library, rate=rate, options=options)
    stream.height, stream.width = size
    stream.pix_fmt = "yuv420p10le"
    context = stream.codec_context
    context.color_primaries, context.color_trc, context.colorspace = BT2020, PQ, BT2020_NCL
    context.color_range = _LIMITED_RANGE
    context.time_base = 1 / rate
    context.codec_tag = codec.tag
    return stream


def _frame(av: Any, codes: np.ndarray, index: int) -> Any:
    """A 4:2:0 10-bit frame of a PQ signal [H,W,3] in [0,1]."""
    frame = av.VideoFrame(codes.shape[1], codes.shape[0], "yuv420p10le")
    for plane, values in zip(frame.planes, to_yuv420(codes), strict=True):
        rows = np.zeros((plane.height, plane.line_size // 2), "<u2")
        rows[:, : values.shape[1]] = values
        plane.update(rows)
    frame.color_primaries, frame.color_trc, frame.colorspace = BT2020, PQ, BT2020_NCL
    frame.color_range = _LIMITED_RANGE
    frame.pts = index
    return frame


def to_yuv420(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Limited-range 10-bit Y, Cb, Cr of a BT.2020 signal; chroma sits on the top left pixel (BT.2100)."""
    red, green, blue = codes[..., 0], codes[..., 1], codes[..., 2]
    luma = _KR * red + (1 - _KR - _KB) * green + _KB * blue
    planes = [np.rint(luma * 876 + 64).astype(np.uint16)]
    for colour, weight in ((blue, _KB), (red, _KR)):
        chroma = _halve((colour - luma) / (2 * (1 - weight)))
        planes.append(np.rint(chroma * 896 + 512).clip(64, 960).astype(np.uint16))
    return planes[0], planes[1], planes[2]


def _halve(plane: np.ndarray) -> np.ndarray:
    """Every second sample of a 1-2-1 mean in both directions."""
    wide = np.pad(plane, 1, mode="edge")
    rows = wide[:-2:2] + 2 * wide[1:-1:2] + wide[2::2]
    return (rows[:, :-2:2] + 2 * rows[:, 1:-1:2] + rows[:, 2::2]) / 16


def _x265(level: LightLevel, crf: int, side: int) -> dict[str, str]:
    green, blue, red, white = (_points(50000)[index] for index in (1, 2, 0, 3))
    display = (
        f"G{green}B{blue}R{red}WP{white}L({_display_peak(level) * 10000:.0f},{_MASTERING_BLACK * 10000:.0f})"
    )
    settings = {
        **{"hdr10": 1, "hdr10-opt": 1, "repeat-headers": 1, "colorprim": "bt2020", "transfer": "smpte2084"},
        **{"colormatrix": "bt2020nc", "range": "limited", "chromaloc": 2, "master-display": display},
        **{"max-cll": f"{level.max_cll:.0f},{level.average:.0f}", "log-level": "error"},
        "cutree": int(side >= _SMALLEST_CU_TREE),
    }
    return {"crf": str(crf), "x265-params": ":".join(f"{name}={value}" for name, value in settings.items())}


def _svtav1(level: LightLevel, crf: int, side: int) -> dict[str, str]:
    green, blue, red, white = (_points(1)[index] for index in (1, 2, 0, 3))
    display = f"G{green}B{blue}R{red}WP{white}L({_display_peak(level):.4f},{_MASTERING_BLACK:.4f})"
    light = f"{level.max_cll:.0f},{level.average:.0f}"
    # FFmpeg's own option takes a crf of 0 for one that was not given, and the encoder then uses 35.
    return {
        "svtav1-params": f"mastering-display={display}:content-light={light}:enable-hdr=1"
        f":chroma-sample-position=topleft:crf={crf}"
    }


def _points(unit: int) -> list[str]:
    """Red, green, blue and white of the mastering display as (x,y), in steps of 1/unit."""
    digits = 4 if unit == 1 else 0
    points = PRIMARIES[_MASTERING_PRIMARIES]
    return [f"({x * unit:.{digits}f},{y * unit:.{digits}f})" for x, y in points]


def _display_peak(level: LightLevel) -> float:
    return max(_MASTERING_PEAK, float(np.ceil(level.max_cll)))


_CODECS: Mapping[str, _Codec] = MappingProxyType(
    {
        "hevc": _Codec("libx265", "hvc1", _x265, smallest_side=16),
        # With less, SVT-AV1 waits for ever where the other side is long.
        "av1": _Codec("libsvtav1", "av01", _svtav1, smallest_side=32),
    }
)
_PRESETS: Mapping[str, str] = MappingProxyType({"hevc": "medium", "av1": "8"})
