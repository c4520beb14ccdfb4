"""Stage 2's validation: which pictures, which captions, which lines of the log."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from training.stage2.trainer import run


def test_a_validation_without_pictures_leaves_no_empty_line(
    stage2: Callable[..., Any], tmp_path: Path
) -> None:
    run(stage2(max_train_steps=2, validation_steps=1))
    lines = [json.loads(line) for line in (tmp_path / "stage2" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2] and all("loss" in line for line in lines)
