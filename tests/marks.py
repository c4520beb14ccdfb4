"""Marks for tests of what a library of the host may be too old for."""

from __future__ import annotations

import inspect

import pytest


def tags_avif() -> bool:
    """Whether HDR pictures can be written as AVIF."""
    try:
        import imagecodecs
    except ImportError:
        return False
    return "primaries" in inspect.signature(imagecodecs.avif_encode).parameters


writes_avif = pytest.mark.skipif(
    not tags_avif(), reason="writing AVIF needs an imagecodecs that sets colour tags (none for Python 3.10)"
)
