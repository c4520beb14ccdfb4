"""Readers that share no code with the pack."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

LIBULTRAHDR = """
import sys, imagecodecs, numpy
with open(sys.argv[1], "rb") as file:
    numpy.save(sys.argv[2], imagecodecs.ultrahdr_decode(file.read(), dtype="float16", boost=64.0))
"""
PQ = (2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128)


def read_exr(path: Path) -> tuple[np.ndarray, dict]:
    """Pixels [H,W,3] and header, by OpenEXR."""
    openexr = pytest.importorskip("OpenEXR")
    with openexr.File(str(path)) as file:
        return file.channels()["RGB"].pixels.copy(), dict(file.header())


def read_ultrahdr(path: Path, folder: Path) -> np.ndarray:
    """[H,W,3] linear, by libultrahdr, in a process of its own because damaged files can crash it."""
    pytest.importorskip("imagecodecs")
    decoded = folder / "decoded.npy"
    subprocess.run([sys.executable, "-c", LIBULTRAHDR, str(path), str(decoded)], check=True, timeout=120)
    return np.load(decoded)[..., :3].astype(np.float32)


def exiftool(path: Path, *options: str) -> bytes:
    program = shutil.which("exiftool")
    if program is None:
        pytest.skip("exiftool is not installed: scripts/install_system_packages.sh installs it")
    return subprocess.run([program, *options, str(path)], check=True, capture_output=True).stdout


def pq(hdr: np.ndarray) -> np.ndarray:
    """SMPTE ST 2084 code values of linear light, 1.0 = 203 nits."""
    m1, m2, c1, c2, c3 = PQ
    power = (np.clip(hdr, 0, None) * 203 / 10000) ** m1
    return ((c1 + c2 * power) / (1 + c3 * power)) ** m2


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """For values in [0,1]."""
    return float(-10 * np.log10(np.mean((a.astype(np.float64) - b) ** 2)))
