"""No damaged file crashes a reader, hangs it, makes it grow, or raises anything but ImageReadError."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.marks import writes_avif

ROOT = Path(__file__).parents[2]
LOADERS = ("ultrahdr", "exr", "radiance", "png", pytest.param("avif", marks=writes_avif), "jxl", "video")
NEEDS = {"exr": "OpenEXR", "jxl": "imagecodecs", "png": "av", "video": "av"}


def fuzz(loader: str, count: int, seed: int) -> dict:
    command = [sys.executable, "-m", "tests.codecs.fuzz", loader, str(count), str(seed)]
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    ended = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200, check=False
    )
    assert ended.returncode == 0, f"{loader} ended with {ended.returncode}: {ended.stderr[-800:]}"
    return json.loads(ended.stdout.splitlines()[-1])


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("count", [150, pytest.param(2000, marks=pytest.mark.slow)])
def test_damaged_files(loader, count):
    if loader in NEEDS:
        pytest.importorskip(NEEDS[loader])
    result = fuzz(loader, count, seed=count)
    assert result["other"] == []
    assert result["read"] + result["refused"] == count
    assert result["megabytes"] < 2000
