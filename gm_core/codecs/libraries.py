"""Codec libraries that are imported only when a file needs them."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from ..errors import GainMapError


def library(name: str, purpose: str, error: type[GainMapError]) -> ModuleType:
    """Import a codec library.

    Raises:
        error: it is not installed; the message says how to get it.
    """
    try:
        return import_module(name)
    except ImportError as cause:
        raise error(f"{purpose} needs the Python package {name}: pip install {name}") from cause
