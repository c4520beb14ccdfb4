"""Tensor files: safetensors with their metadata, checkpoints of others as plain tensors only."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gm_core.errors import ModelFileError


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and string metadata of a safetensors file. Raises: ModelFileError."""
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118


def read_metadata(path: Path) -> dict[str, str]:
    """String metadata of a safetensors file, without its tensors. Raises: ModelFileError."""
    with _opened(path) as file:
        return file.metadata() or {}


def read_checkpoint(path: Path) -> Mapping[str, Any]:
    """What torch.save wrote by name, unpickled as plain tensors only. Raises: ModelFileError."""
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch documents no closed list of what a damaged or unsafe pickle raises; its texts advise to trust.
        raise ModelFileError(
            f"{path} is not a checkpoint of plain tensors ({type(error).__name__})"
        ) from error
    if not isinstance(stored, Mapping):
        raise ModelFileError(f"{path} holds {type(stored).__name__}, expected tensors by name")
    return stored


def save_tensors(
    weights: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file, readable for whom other new files are; safetensors makes it private."""
    path.touch()
    permissions = path.stat().st_mode
    save_file(dict(weights), path, metadata=None if metadata is None else dict(metadata))
    path.chmod(permissions)


def save_whole(weights: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write a safetensors file that appears only when complete, in place of an earlier one; makes its folder.

    Raises: ModelFileError when it cannot be written; an earlier one is untouched then.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_tensors(weights, partial, metadata)
        os.replace(partial, path)
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f"could not write {path}: {error}; make room and run again") from error
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f"{path} is not a readable safetensors file: {error}") from error
