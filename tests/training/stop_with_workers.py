"""Run by test_resume as a process group of its own: a Stage 2 run with data workers that is told to stop."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from training.config import Stage2Config
from training.errors import TrainingInterrupted
from training.stage2.trainer import Stage2Task, run


def main(settings: str, failure: str) -> None:
    torch.set_num_threads(1)
    original = Stage2Task.update

    def update(self: Any, number: int, batches: Any) -> dict[str, float]:
        if number == 1 and failure:
            raise RuntimeError(failure)
        if number == 1:
            # By another process, as launchers do; a parent's own signal is another matter to its workers.
            subprocess.run(["sh", "-c", "kill -TERM 0"], check=False)
        return original(self, number, batches)

    Stage2Task.update = update  # type: ignore[method-assign]
    try:
        run(Stage2Config(**json.loads(Path(settings).read_text())))
    except TrainingInterrupted as stop:
        print(stop)


if __name__ == "__main__":
    main(*sys.argv[1:])
