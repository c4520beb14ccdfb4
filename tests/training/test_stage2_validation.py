"""Stage 2's validation: which pictures, which captions, which lines of the log."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from training.errors import ConfigError
from training.stage1.validation import load_pictures
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


def test_the_next_one_takes_the_place_of_a_validation_picture_that_cannot_be_used(
    stage1: Callable[..., Any], stage2: Callable[..., Any], photos: Path, triples: Path, tmp_path: Path
) -> None:
    pictures, rows = tmp_path / "pictures", tmp_path / "rows"
    shutil.copytree(photos, pictures)
    (pictures / "a.png").write_bytes(b"<html>")
    rows.mkdir()
    table = parquet.read_table(triples / "triples-000000.parquet")
    maps = table["gainmap"].to_pylist()
    missing = pyarrow.array([None, *maps[1:]], pyarrow.binary())
    parquet.write_table(
        table.set_column(table.schema.get_field_index("gainmap"), "gainmap", missing), rows / "a.parquet"
    )
    shutil.copy(triples / "triples-000001.parquet", rows)
    names = [case.name for case in load_cases(stage2(validation_image_dir=pictures, validation_samples=2))]
    assert names == ["photo_000", "photo_001"]
    assert len(load_cases(stage2(validation_metadata=[rows], validation_samples=2))) == 2
    assert len(load_pictures(stage1(validation_image_dir=pictures))) == 6


def test_a_validation_of_which_nothing_can_be_used_is_refused(
    stage1: Callable[..., Any], stage2: Callable[..., Any], photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(b"<html>")
    unreadable = {"validation_image_dir": tmp_path}
    for load, config in (
        (load_pictures, stage1(**unreadable)),
        (load_cases, stage2(**unreadable)),
        (load_cases, stage2(validation_metadata=[photos])),
    ):
        with pytest.raises(ConfigError, match="no validation picture can be used"):
            load(config)
