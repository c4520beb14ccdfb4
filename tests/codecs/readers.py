"""Independent readers of the files under test."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# libultrahdr 1.4 crashes the process on some inputs, so it always runs in one of its own.
_LIBULTRAHDR = """
import sys, numpy, imagecodecs
data = open(sys.argv[1], "rb").read()
boost = float(sys.argv[3]) or None
pixels = imagecodecs.ultrahdr_decode(data, boost=boost)
numpy.save(sys.argv[2], pixels[..., :3].astype(numpy.float32))
"""


def libultrahdr(data: bytes, folder: Path, boost: float = 0) -> np.ndarray:
    """[H,W,3] linear light as libultrahdr decodes the file; boost 0 = all of the gain map."""
    source, target = folder / "libultrahdr.jpg", folder / "libultrahdr.npy"
    source.write_bytes(data)
    command = [sys.executable, "-c", _LIBULTRAHDR, str(source), str(target), str(boost)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if "No module named 'imagecodecs'" in ended.stderr:
        pytest.skip("imagecodecs is not installed")
    assert ended.returncode == 0, ended.stderr[-500:]
    return np.load(target)


def exiftool(path: Path, *options: str) -> dict[str, Any]:
    """All tags as {group:name: value}; skips the test where exiftool is missing."""
    _need("exiftool")
    command = ["exiftool", "-json", "-G1", "-n", *options, str(path)]
    return json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)[0]


def ffprobe(path: Path) -> dict[str, Any]:
    """Stream 0 with the side data of its first frame; skips the test where ffprobe is missing."""
    _need("ffprobe")
    command = ["ffprobe", "-v", "error", "-of", "json", "-select_streams", "v:0", "-read_intervals", "%+#1"]
    command += ["-show_streams", "-show_frames", str(path)]
    return json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)


def run_ffmpeg(*arguments: str) -> None:
    """The ffmpeg program; skips the test where it is missing."""
    _need("ffmpeg")
    subprocess.run(["ffmpeg", "-v", "error", *arguments], check=True, timeout=60)


def _need(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
