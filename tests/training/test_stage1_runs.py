"""Runs of Stage 1: what is refused at their start, and networks that take turns, as published."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gm_core.errors import GainMapError
from training.stage1.trainer import run


def logged(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_coding_beyond_the_peak_is_refused_before_the_first_step(
    stage1: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(GainMapError, match="log2_max is a gain of 256"):
        run(stage1(gain_encoding="log2", gain_log2_max=8.0))
    assert not (tmp_path / "stage1").exists()


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
