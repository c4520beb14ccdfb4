"""Run-length coding of Radiance scan lines: byte planes, runs of 1 to 127, literals of 1 to 128."""

from __future__ import annotations

import numpy as np

from ...errors import ImageReadError

MIN_WIDTH, MAX_WIDTH = 8, 32767
# Shorter runs cost more as a token of their own than inside a literal.
_MIN_RUN = 4
_RUN, _LITERAL = 127, 128


def encode_lines(rgbe: np.ndarray) -> bytes:
    """Scan lines [n,W,4] uint8, 8 <= W <= 32767, in the run-length form of 1991.

    Works on whole arrays: finds runs, joins what lies between them to literals, then scatters tokens.
    """
    count, width = rgbe.shape[:2]
    values = np.ascontiguousarray(rgbe.transpose(0, 2, 1)).reshape(-1)
    start, length, is_run = _tokens(values, width)
    size = np.where(is_run, 2, 1 + length)
    line = start // (4 * width)
    offset = np.cumsum(size) - size + 4 * (line + 1)
    out = np.empty(int(size.sum()) + 4 * count, np.uint8)
    first = offset[np.searchsorted(line, np.arange(count))]
    for index, byte in enumerate((2, 2, width >> 8, width & 255)):
        out[first - 4 + index] = byte
    out[offset] = np.where(is_run, 128 + length, length)
    out[offset[is_run] + 1] = values[start[is_run]]
    source, target = start[~is_run], offset[~is_run] + 1
    copied = length[~is_run]
    step = np.arange(int(copied.sum())) - np.repeat(np.cumsum(copied) - copied, copied)
    out[np.repeat(target, copied) + step] = values[np.repeat(source, copied) + step]
    return out.tobytes()


def _tokens(values: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Start, length and kind (run or literal) of each token; no token crosses a plane of a line."""
    change = np.empty(values.size, bool)
    change[0] = True
    np.not_equal(values[1:], values[:-1], out=change[1:])
    change[::width] = True
    run_start = np.flatnonzero(change)
    run_length = np.diff(run_start, append=values.size)
    long = run_length >= _MIN_RUN
    opens = long | (run_start % width == 0)
    opens[1:] |= long[:-1]
    start, is_run = run_start[opens], long[opens]
    length = np.diff(start, append=values.size)
    limit = np.where(is_run, _RUN, _LITERAL)
    pieces = -(-length // limit)
    index = np.arange(int(pieces.sum())) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    limit, is_run = np.repeat(limit, pieces), np.repeat(is_run, pieces)
    done = index * limit
    return np.repeat(start, pieces) + done, np.minimum(limit, np.repeat(length, pieces) - done), is_run


def decode_lines(data: bytes, position: int, count: int, width: int) -> np.ndarray:
    """[count,width,4] uint8 from scan lines in the new, the old or no run-length form.

    Raises:
        ImageReadError: a run leaves its line, or the data ends early.
    """
    lines = np.empty((count, width, 4), np.uint8)
    packed = MIN_WIDTH <= width <= MAX_WIDTH
    for index in range(count):
        head = data[position : position + 4]
        if packed and len(head) == 4 and head[:2] == b"\2\2" and head[2] < 128:
            if head[2] << 8 | head[3] != width:
                raise ImageReadError(f"Radiance: line {index} has another width; the file is damaged")
            planes, position = _read_planes(data, position + 4, width, index)
            lines[index] = np.frombuffer(planes, np.uint8).reshape(4, width).T
        else:
            lines[index], position = _read_old(data, position, width, index)
    return lines


def _read_planes(data: bytes, position: int, width: int, line: int) -> tuple[bytes, int]:
    """The four byte planes of one line and the offset behind them."""
    planes = bytearray()
    try:
        for plane in range(1, 5):
            end = plane * width
            while len(planes) < end:
                code = data[position]
                if code > 128:
                    planes += data[position + 1 : position + 2] * (code - 128)
                    position += 2
                else:
                    planes += data[position + 1 : position + 1 + code]
                    position += 1 + code
                if not code or len(planes) > end or position > len(data):
                    raise ImageReadError(
                        f"Radiance: a run of line {line} leaves the line; the file is damaged"
                    )
    except IndexError:
        raise ImageReadError(f"Radiance: the pixels end in line {line}; the file is truncated") from None
    return bytes(planes), position


def _read_old(data: bytes, position: int, width: int, line: int) -> tuple[np.ndarray, int]:
    """One line of plain pixels, where (1, 1, 1, n) repeats the pixel before it n times."""
    plain = np.frombuffer(data, np.uint8, min(4 * width, (len(data) - position) & ~3), position).reshape(
        -1, 4
    )
    if len(plain) == width and not (plain[:, :3] == 1).all(axis=1).any():
        return plain, position + 4 * width
    pixels, shift = bytearray(), 0
    while len(pixels) < 4 * width:
        pixel = data[position : position + 4]
        position += 4
        if len(pixel) < 4:
            raise ImageReadError(f"Radiance: the pixels end in line {line}; the file is truncated")
        if pixel[:3] != b"\1\1\1":
            pixels += pixel
            shift = 0
            continue
        repeat = pixel[3] << shift
        if not pixels or len(pixels) + 4 * repeat > 4 * width:
            raise ImageReadError(f"Radiance: a run of line {line} leaves the line; the file is damaged")
        pixels += pixels[-4:] * repeat
        shift += 8
    return np.frombuffer(pixels, np.uint8).reshape(width, 4), position
