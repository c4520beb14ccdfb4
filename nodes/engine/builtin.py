"""The model files that ship with the pack."""

from __future__ import annotations

from pathlib import Path

from ...gm_core.errors import ModelFileError

WEIGHTS = Path(__file__).parents[2] / "weights"


def weights_file(name: str) -> Path:
    """The file of that name from `gm_core.shipped`.

    Raises:
        ModelFileError: it is not there.
    """
    path = WEIGHTS / name
    if not path.is_file():
        raise ModelFileError(
            f"{name} is missing from the folder 'weights' of the pack. Install the pack again."
        )
    return path
