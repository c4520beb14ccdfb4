"""Codec libraries that are imported only when a file needs them."""

from __future__ import annotations

from importlib import import_module
from re import findall
from types import ModuleType

from ..errors import GainMapError

OPENEXR_VERSION = (3, 5)


def library(name: str, purpose: str, error: type[GainMapError]) -> ModuleType:
    """Import a codec library.

    Raises:
        error: it is not installed; the message says how to get it.
    """
    try:
        return import_module(name)
    except ImportError as cause:
        raise error(f"{purpose} needs the Python package {name}: pip install {name}") from cause


def openexr_library(purpose: str, error: type[GainMapError]) -> ModuleType:
    """Import OpenEXR.

    Raises:
        error: it is not installed, or reads and writes files alone, not bytes in memory.
    """
    module = library("OpenEXR", purpose, error)
    version = getattr(module, "__version__", "0")
    if tuple(int(number) for number in findall(r"\d+", version)[:2]) < OPENEXR_VERSION:
        raise error(
            f"{purpose} needs OpenEXR 3.5 or newer, not {version}: pip install --upgrade OpenEXR "
            "in the Python that runs ComfyUI, then restart it"
        )
    return module
