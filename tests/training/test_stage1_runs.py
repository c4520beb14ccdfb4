"""Runs of Stage 1: what is refused at their start, and networks that take turns, as published."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gm_core.codecs.radiance import encode_radiance
from gm_core.errors import GainMapError
from training.stage1.adapter import FILE
from training.stage1.trainer import run
from training.tensor_files import read_tensors


def logged(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_coding_beyond_the_peak_is_refused_before_the_first_step(
    stage1: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(GainMapError, match="log2_max is a gain of 256"):
        run(stage1(gain_encoding="log2", gain_log2_max=8.0))
    assert not (tmp_path / "stage1").exists()


def test_small_batches_accumulated_equal_a_large_one_where_some_rows_have_ground_truth(
    stage1: Callable[..., Any], photos: Path, tmp_path: Path
) -> None:
    shutil.copytree(photos, tmp_path / "pairs")
    for file in sorted((tmp_path / "pairs").glob("*.png"))[::2]:
        with Image.open(file) as photo:
            truth = np.full((photo.height, photo.width, 3), 4.0, np.float32)
        file.with_suffix(".hdr").write_bytes(encode_radiance(truth))
    adapters = []
    for batch in (6, 1):
        out = tmp_path / f"by {batch}"
        shared = {"train_metadata": [tmp_path / "pairs"], "adversarial_weight": 0.0, "max_train_steps": 1}
        batches = {"train_batch_size": batch, "gradient_accumulation_steps": 6 // batch}
        run(stage1(output_dir=out, **shared, **batches))
        assert logged(out)[0]["supervised_loss"] > 0.5
        adapters.append(read_tensors(out / "checkpoint-00000001" / "vae_adapter" / FILE)[0])
    assert all(torch.allclose(one, adapters[1][name], atol=1e-6) for name, one in adapters[0].items())


def test_until_the_discriminator_plays_every_step_is_the_generators(
    stage1: Callable[..., Any], tmp_path: Path
) -> None:
    run(stage1(alternate_updates=True, discr_start_step=2, max_train_steps=3))
    lines = logged(tmp_path / "stage1")
    assert [line["grad_norm"] > 0 for line in lines] == [True] * 3
    assert ["adversarial_loss" in line for line in lines] == [False, False, True]


def test_every_line_of_the_log_knows_of_both_networks(stage1: Callable[..., Any], tmp_path: Path) -> None:
    run(stage1(alternate_updates=True, log_steps=2))
    for line in logged(tmp_path / "stage1"):
        assert {"loss", "reconstruction_loss", "adversarial_loss", "lr", "discr_loss"} <= line.keys()
