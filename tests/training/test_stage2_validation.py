"""Stage 2's validation: which pictures, which captions, which lines of the log."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from training.errors import ConfigError
from training.stage2.trainer import run
from training.stage2.validation import load_cases


def test_a_validation_without_pictures_leaves_no_empty_line(
    stage2: Callable[..., Any], tmp_path: Path
) -> None:
    run(stage2(max_train_steps=2, validation_steps=1))
    lines = [json.loads(line) for line in (tmp_path / "stage2" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2] and all("loss" in line for line in lines)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"validation_prompts": list("abcdefg")}, "holds 6 pictures for 7 validation prompts; pair them up"),
        ({"validation_prompts": ["a"], "text": "none"}, "text is none: the model hears no captions"),
        ({"validation_metadata": ["set"]}, "validation_metadata brings its own pictures and captions"),
    ],
    ids=["more prompts than pictures", "no text", "two kinds of pictures"],
)
def test_validation_settings_that_would_go_unheard_are_refused(
    stage2: Callable[..., Any], photos: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_cases(stage2(validation_image_dir=photos, **changes))


def test_of_more_pictures_than_are_asked_for_the_first_take_the_prompts(
    stage2: Callable[..., Any], photos: Path
) -> None:
    for prompts in (["a", "b"], list("abcdef")):
        cases = load_cases(
            stage2(validation_image_dir=photos, validation_prompts=prompts, validation_samples=2)
        )
        assert [(case.name, case.caption) for case in cases] == [("photo_000", "a"), ("photo_001", "b")]
