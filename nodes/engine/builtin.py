"""The model files that ship with the pack."""

from __future__ import annotations

from pathlib import Path

from ...gm_core.errors import ModelFileError

WEIGHTS = Path(__file__).parents[2] / "weights"
UNET = "gm_unet_builtin.safetensors"
VAE = "gm_vae_builtin.safetensors"


def weights_file(name: str) -> Path:
    """One of them; raises ModelFileError when it is not there."""
    path = WEIGHTS / name
    if not path.is_file():
        raise ModelFileError(
            f"{name} is missing from the folder 'weights' of the pack. Install the pack again."
        )
    return path
