"""Files that a workflow may read: those in ComfyUI's input, output and temp folders."""

from __future__ import annotations

import os
from pathlib import Path

import folder_paths
import numpy as np
import torch
from comfy_api.latest import io

from ..gm_core.errors import ImageReadError


def file_input(
    suffixes: tuple[str, ...], name: str = "image", upload: io.UploadType = io.UploadType.image
) -> io.Combo.Input:
    """A file chooser with an upload button, as core's LoadImage and LoadVideo have."""
    return io.Combo.Input(
        name,
        options=input_files(suffixes),
        upload=upload,
        image_folder=io.FolderType.input,
        tooltip="A file in ComfyUI's input folder. Its format is told by its content, not its name.",
    )


def input_files(suffixes: tuple[str, ...]) -> list[str]:
    """Names in the input folder with one of these suffixes."""
    folder = Path(folder_paths.get_input_directory())
    names = (entry.name for entry in os.scandir(folder) if entry.is_file()) if folder.is_dir() else ()
    return sorted(name for name in names if name.lower().endswith(suffixes))


def input_path(name: str) -> Path:
    """A file of the input, output or temp folder, named as core does: `x.exr`, `x.exr [output]`.

    Raises:
        ImageReadError: not there, or outside that folder, also through a link.
    """
    if not isinstance(name, str) or "\0" in name:
        raise ImageReadError(f"file {name!r}: not a file name.")
    bare, folder = folder_paths.annotated_filepath(name)
    root = Path(folder or folder_paths.get_input_directory()).resolve()
    path = (root / bare.strip()).resolve()
    if not path.is_relative_to(root):
        raise ImageReadError(f"file {name!r}: outside ComfyUI's {root.name} folder. Copy the file into it.")
    if not path.is_file():
        raise ImageReadError(f"file {name!r}: no such file in ComfyUI's {root.name} folder.")
    return path


def why_unreadable(name: str | None) -> bool | str:
    """For validate_inputs: True, or what is wrong with the name; None is one that a link will bring."""
    if name is None:
        return True
    try:
        input_path(name)
    except ImageReadError as error:
        return str(error)
    return True


def fingerprint(path: Path) -> str:
    """Changes when the file does."""
    status = path.stat()
    return f"{path} {status.st_mtime_ns} {status.st_size}"


def input_fingerprint(name: str | None, *settings: object) -> str | float:
    """For fingerprint_inputs: changes when the file or a setting does.

    A name that a link will bring is None and not known yet. NaN equals nothing, so that the node runs.
    """
    if name is None:
        return float("nan")
    return " ".join(map(str, (fingerprint(input_path(name)), *settings)))


def to_bchw_array(array: np.ndarray) -> torch.Tensor:
    """numpy [H,W,C] -> [1,C,H,W]."""
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)).movedim(-1, 0)[None]
