"""Figures F21 to F24: damaged files, sizes, concurrent writers, full disks, time and memory."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.figures import Figure, at_most, best_seconds, exact
from gm_core.codecs.avif import decode_avif, encode_avif
from gm_core.codecs.exr import decode_exr, encode_exr
from gm_core.codecs.files import claim_numbered, read_image
from gm_core.codecs.jxl import decode_jxl, encode_jxl
from gm_core.codecs.png import decode_png, encode_png_pq
from gm_core.codecs.radiance import decode_radiance, encode_radiance
from gm_core.codecs.ultrahdr import decode_ultrahdr, encode_ultrahdr
from tests.codecs.fuzz import LOADERS
from tests.codecs.scenes import case

ROOT = Path(__file__).parents[1]
FUZZED = 2000
SIZES = (
    (1, 1),
    (5, 7),
    (513, 1),
    (1, 513),
    (2160, 4096),
    (16, 8192),
    *((9, width) for width in range(31, 66)),
)

_FULL_DISK = """
import os, resource, signal, sys
import numpy as np
from gm_core.codecs.files import write_atomic
from gm_core.codecs.radiance import encode_radiance
from gm_core.errors import ImageWriteError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50000, 50000))
try:
    write_atomic(sys.argv[1] + "/a.hdr", encode_radiance(np.random.default_rng(0).random((200, 200, 3))))
except ImageWriteError:
    print(os.listdir(sys.argv[1]))
"""
_MEMORY = """
import numpy as np
from gm_core.codecs.ultrahdr import encode_ultrahdr
from tests.codecs.fuzz import peak_megabytes
rng = np.random.default_rng(0)
sdr = rng.random((2160, 3840, 3), np.float32)
encode_ultrahdr(sdr=sdr, hdr=sdr * 5)
print(peak_megabytes())
"""


def figures(folder: Path) -> Iterator[Figure]:
    yield from _sizes()
    yield from _writers(folder)
    yield from _speed()
    yield at_most("4K Ultra HDR save, peak memory of the process", float(_python(_MEMORY)), 1500, "MB")
    yield from _fuzz()


def _python(script: str, *arguments: str) -> str:
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def _fuzz() -> Iterator[Figure]:
    for loader in LOADERS:
        command = [sys.executable, "-m", "tests.codecs.fuzz", loader, str(FUZZED), "0"]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        crashed = ended.returncode != 0
        result = (
            {"other": ["crash"], "megabytes": 0} if crashed else json.loads(ended.stdout.splitlines()[-1])
        )
        yield exact(
            f"F21 {loader}: {FUZZED} damaged files, crashes and foreign errors", len(result["other"]), 0
        )
        yield at_most(f"F21 {loader}: peak memory", result["megabytes"], 2000, "MB")


def _sizes() -> Iterator[Figure]:
    formats: dict[str, tuple[Callable, Callable]] = {
        "Ultra HDR": (lambda hdr: encode_ultrahdr(sdr=np.minimum(hdr, 1), hdr=hdr), decode_ultrahdr),
        "OpenEXR": (encode_exr, decode_exr),
        "OpenEXR half": (lambda hdr: encode_exr(hdr, half=True), decode_exr),
        "Radiance": (encode_radiance, decode_radiance),
        "PNG": (encode_png_pq, decode_png),
        "AVIF": (lambda hdr: encode_avif(hdr, speed=10), decode_avif),
        "JPEG XL": (lambda hdr: encode_jxl(hdr, effort=1), decode_jxl),
    }
    for name, (encode, decode) in formats.items():
        failed = [size for size in SIZES if not _survives(encode, decode, size)]
        yield exact(f"F22 {name}: {len(SIZES)} sizes lose shape or values above 1", failed, [])


def _survives(encode: Callable, decode: Callable, size: tuple[int, int]) -> bool:
    hdr = np.full((*size, 3), 4.0, np.float32)
    read = decode(encode(hdr)).hdr
    return read.shape == hdr.shape and bool(np.abs(read - hdr).max() < 0.2)


def _save(arguments: tuple[str, int]) -> str:
    folder, index = arguments
    picture = np.full((64, 64, 3), index / 16, np.float32)
    return str(claim_numbered(folder, "save", ".jpg", encode_ultrahdr(sdr=picture, hdr=picture * 4)))


def _writers(folder: Path) -> Iterator[Figure]:
    shared = folder / "shared"
    shared.mkdir()
    with ProcessPoolExecutor(16) as pool:
        paths = list(pool.map(_save, zip(itertools.repeat(str(shared)), range(16), strict=False)))
    valid = sum(read_image(path).gain_map is not None for path in set(paths))
    yield exact("F23 16 processes, one prefix: distinct valid files", valid, 16)
    yield exact("F23 files in the folder afterwards", len(os.listdir(shared)), 16)
    full = folder / "full"
    full.mkdir()
    yield exact("F23 disk full: error, and what is left", _python(_FULL_DISK, str(full)), "[]")


def _speed() -> Iterator[Figure]:
    noise = np.random.default_rng(0).random((1024, 1024, 3), np.float32)
    scene = case("street", 9, 1024, 1024)
    sdr, hdr = scene.sdr.astype(np.float32), scene.hdr.astype(np.float32)
    ultra = best_seconds(lambda: encode_ultrahdr(sdr=sdr, hdr=hdr))
    yield at_most("F24 Ultra HDR 1024x1024", ultra, 0.6, "s")
    yield at_most(
        "F24 OpenEXR ZIP half 1024x1024, noise", best_seconds(lambda: encode_exr(noise, half=True)), 0.4, "s"
    )
    yield at_most("F24 OpenEXR ZIP float 1024x1024, noise", best_seconds(lambda: encode_exr(noise)), 0.8, "s")
    yield from _against_others(sdr, hdr, "1024x1024")
    big = case("street", 9, 2160, 3840)
    yield from _against_others(big.sdr.astype(np.float32), big.hdr.astype(np.float32), "3840x2160")


def _against_others(sdr: np.ndarray, hdr: np.ndarray, size: str) -> Iterator[Figure]:
    import imagecodecs
    import OpenEXR

    rgba = np.concatenate([hdr, np.ones_like(hdr[..., :1])], -1).astype(np.float16)
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    pairs = {
        "Ultra HDR against libultrahdr": (
            lambda: encode_ultrahdr(sdr=sdr, hdr=hdr),
            lambda: imagecodecs.ultrahdr_encode(rgba),
        ),
        "OpenEXR against the library alone": (
            lambda: encode_exr(hdr),
            lambda: OpenEXR.File(header, {"RGB": hdr}).write(os.devnull),
        ),
        "Radiance against imagecodecs": (lambda: encode_radiance(hdr), lambda: imagecodecs.rgbe_encode(hdr)),
    }
    limits = (1.5, 1.5, 25.0)
    for (name, (ours, theirs)), limit in zip(pairs.items(), limits, strict=True):
        yield at_most(f"{name}, {size}: time ratio", best_seconds(ours, 3) / best_seconds(theirs, 3), limit)
