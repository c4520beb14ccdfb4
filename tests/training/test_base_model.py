"""What is loaded of a base model."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from training.base_model import load_text, load_unet, load_vae

PARTS = {"text_encoder": lambda model: load_text(model)[1], "unet": load_unet, "vae": load_vae}


def test_a_base_model_stored_in_half_precision_is_computed_in_float32(base: Path, tmp_path: Path) -> None:
    half = shutil.copytree(base, tmp_path / "half")
    for name, load in PARTS.items():
        load(str(base)).half().save_pretrained(half / name)
    dtypes = {value.dtype for load in PARTS.values() for value in load(str(half)).parameters()}
    assert dtypes == {torch.float32}
