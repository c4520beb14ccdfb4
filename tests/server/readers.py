"""Readers that share no code with the pack, beside those of tests/codecs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest


def read_exr(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """Pixels [H,W,3] and header, by OpenEXR."""
    openexr = pytest.importorskip("OpenEXR")
    with openexr.File(str(path)) as file:
        return file.channels()["RGB"].pixels.copy(), dict(file.header())
