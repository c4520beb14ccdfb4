"""Feeds mutated files to one decoder; run in a process of its own: `python -m tests.codecs.fuzz exr 100 0`.

Prints one JSON line: how many were read, how many refused, what else was raised, peak memory, slowest file.
"""

from __future__ import annotations

import json
import resource
import signal
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from gm_core.codecs.avif import encode_avif
from gm_core.codecs.exr import encode_exr
from gm_core.codecs.formats import decode_image
from gm_core.codecs.jxl import encode_jxl
from gm_core.codecs.png import encode_png_pq
from gm_core.codecs.radiance import encode_radiance
from gm_core.codecs.ultrahdr import encode_ultrahdr
from gm_core.codecs.video import decode_frames, encode_hdr10
from gm_core.errors import ImageReadError
from tests.codecs.scenes import case

_SECONDS_PER_FILE = 20
_EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)


def seeds(loader: str) -> list[bytes]:
    """Valid files of the loader's format."""
    scene = case("street", 9, 48, 61)
    layers = {"sdr": scene.sdr, "gainmap": scene.gain_map}
    makers: dict[str, Callable[[], list[bytes]]] = {
        "ultrahdr": lambda: [
            encode_ultrahdr(sdr=scene.sdr, hdr=scene.hdr),
            encode_ultrahdr(sdr=scene.sdr, hdr=scene.hdr, gain_map_scale=4, quality=50, primaries="p3"),
        ],
        "exr": lambda: [
            encode_exr(scene.hdr, compression=name, half=half, layers=layers)
            for name in ("zip", "piz", "rle", "none", "dwaa")
            for half in (False, True)
        ],
        "radiance": lambda: [encode_radiance(scene.hdr), encode_radiance(np.ones((9, 300, 3)))],
        "png": lambda: [encode_png_pq(scene.hdr, text={"prompt": "{}"})],
        "avif": lambda: [encode_avif(scene.hdr), encode_avif(scene.hdr, bits=12, quality=100)],
        "jxl": lambda: [encode_jxl(scene.hdr)],
        "video": lambda: [_video(scene.hdr[:, :60], "hevc"), _video(scene.hdr[:, :60], "av1")],
    }
    return makers[loader]()


LOADERS = ("ultrahdr", "exr", "radiance", "png", "avif", "jxl", "video")


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Flip, overwrite, cut, insert or repeat bytes at one to eight places, headers preferred."""
    mutated = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        reach = len(mutated) if rng.random() < 0.5 else min(len(mutated), 600)
        at = int(rng.integers(0, max(reach, 1)))
        choice = rng.choice((0, 0, 0, 1, 1, 1, 2, 3, 4, 5))
        if choice == 0:
            mutated[at : at + 1] = bytes([int(rng.integers(0, 256))])
        elif choice == 1:
            width = int(rng.choice((1, 2, 4)))
            value = int(rng.choice(_EXTREMES)) & ((1 << 8 * width) - 1)
            mutated[at : at + width] = value.to_bytes(width, str(rng.choice(("big", "little"))))
        elif choice == 2:
            mutated[at : at + int(rng.integers(1, 64))] = b""
        elif choice == 3:
            mutated[at:at] = rng.bytes(int(rng.integers(1, 64)))
        elif choice == 4:
            mutated[at:at] = mutated[at : at + int(rng.integers(1, 256))]
        elif rng.random() < 0.2:
            del mutated[at:]
    return bytes(mutated)


def with_valid_checksums(data: bytes) -> bytes:
    """A PNG whose chunk checksums are corrected, so that damage reaches the code behind them."""
    out, position = bytearray(data), 8
    while position + 12 <= len(out):
        (length,) = struct.unpack_from(">I", out, position)
        end = position + 8 + length
        if end + 4 > len(out):
            break
        struct.pack_into(">I", out, end, zlib.crc32(out[position + 4 : end]))
        position = end + 4
    return bytes(out)


def run(loader: str, count: int, seed: int) -> dict[str, object]:
    """Decode `count` mutated files."""
    files, rng = seeds(loader), np.random.default_rng(seed)
    result = {"read": 0, "refused": 0, "other": [], "slowest": 0.0}
    with tempfile.TemporaryDirectory() as folder:
        for index in range(count):
            data = mutate(files[index % len(files)], rng)
            data = with_valid_checksums(data) if loader == "png" and index % 2 else data
            started = time.monotonic()
            signal.alarm(_SECONDS_PER_FILE)
            try:
                _decode(loader, data, Path(folder))
                result["read"] += 1
            except ImageReadError:
                result["refused"] += 1
            except Exception as error:  # the finding this program looks for
                result["other"].append(f"{index}: {error!r}"[:200])
            signal.alarm(0)
            result["slowest"] = max(result["slowest"], round(time.monotonic() - started, 2))
    result["megabytes"] = peak_megabytes()
    return result


def peak_megabytes() -> int:
    """Peak memory of this process alone; getrusage would count what its parent held when it forked."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


def _decode(loader: str, data: bytes, folder: Path) -> None:
    if loader == "video":
        path = folder / "a.mp4"
        path.write_bytes(data)
        for _ in decode_frames(path):
            pass
    else:
        decode_image(data)


def _video(hdr: np.ndarray, codec: str) -> bytes:
    with tempfile.TemporaryFile() as file:
        encode_hdr10(file, lambda: [hdr] * 3, codec=codec, preset="ultrafast" if codec == "hevc" else "12")
        file.seek(0)
        return file.read()


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print(json.dumps(run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
