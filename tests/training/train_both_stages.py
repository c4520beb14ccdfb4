"""Run by test_distributed in several processes: every distributed command once, in one process group."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from accelerate import Accelerator


def main(plan: str) -> None:
    torch.set_num_threads(1)
    settings = json.loads(Path(plan).read_text())
    from training import triples
    from training.config import Stage1Config, Stage2Config, TriplesConfig
    from training.stage1 import trainer as stage1
    from training.stage2 import trainer as stage2

    # A user starts a process per command; importing everything three times would take a minute.
    end_training, Accelerator.end_training = Accelerator.end_training, lambda self: None
    stage1.run(Stage1Config(**settings["stage1"]))
    stage2.run(Stage2Config(**settings["stage2"]))
    triples.run(TriplesConfig(**settings["triples"]))
    end_training(Accelerator())


if __name__ == "__main__":
    main(sys.argv[1])
