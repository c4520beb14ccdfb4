"""Run by test_distributed in two processes: the loop alone, where only the second process meets bad rows."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from training.config import Stage1Config
from training.data.rows import Reject
from training.data.samples import Loaded
from training.errors import DatasetError
from training.loop import TrainingLoop
from training.session import leave
from training.trackers import JsonLines, Trackers

STEPS = 3
BAD = [Reject("key", "missing_file", "")] * 99


class Idle:
    """Trains nothing; the second process has a term that the first one lacks, and where it is 0."""

    def __init__(self, rank: int) -> None:
        self.values = {"loss": 1.0 + rank} | ({"supervised_loss": 5.0} if rank else {})

    def update(self, step: int, batches: Any) -> dict[str, float]:
        return {**self.values, "skipped": 0.0}


def rows(rank: int, *, ends: bool) -> Iterator[list[Loaded[None]]]:
    """100 rows a step: good ones for the first process, one good among bad ones for the second."""
    for step in range(STEPS):
        if ends and rank == 1 and step == 1:
            raise DatasetError("64 rows in a row are unusable")
        yield [Loaded(None)] * 100 if rank == 0 else [Loaded(None, BAD)]


def outcome(accelerator: Accelerator, folder: Path, fraction: float, *, ends: bool = False) -> str:
    """What a run on these rows says."""
    config = Stage1Config(
        pretrained_model_name_or_path="",
        train_metadata=["none"],
        output_dir=str(folder),
        max_reject_fraction=fraction,
        log_steps=1,
        dry_run=True,
    )
    trackers = Trackers([JsonLines(folder / "metrics.jsonl", STEPS)] if accelerator.is_main_process else [])
    rank = accelerator.process_index
    loop = TrainingLoop(
        config=config,
        accelerator=accelerator,
        task=Idle(rank),  # type: ignore[arg-type]  # a dry run neither saves nor validates
        total_steps=STEPS,
    )
    try:
        loop.run(0, rows(rank, ends=ends), trackers)
    except DatasetError as error:
        return str(error)
    return "done"


def main(work: str) -> None:
    accelerator, folder = Accelerator(), Path(work)
    said = {
        "half": outcome(accelerator, folder, 0.5),
        "less": outcome(accelerator, folder, 0.4),
        "ends": outcome(accelerator, folder, 1.0, ends=True),
    }
    (folder / f"process-{accelerator.process_index}.json").write_text(json.dumps(said))
    leave(accelerator)


if __name__ == "__main__":
    main(sys.argv[1])
