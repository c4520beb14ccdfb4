"""From a configuration to a finished run: what `stage1` and `stage2` have in common around the loop."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, set_seed

from training.config.base import TrainConfig
from training.data.plan import RankBatches, SamplingPlan
from training.data.samples import SampleDataset, make_loader
from training.errors import ConfigError
from training.loop import Task, TrainingLoop, global_batch, total_steps
from training.trackers import Trackers, open_trackers

logger = logging.getLogger(__name__)

ConfigT = TypeVar("ConfigT", bound=TrainConfig)


class PreparedTask(Task, Protocol):
    """A task that creates its optimisers once the length of the run is known."""

    def prepare(self, total_steps: int) -> None: ...


@dataclass(frozen=True)
class Session:
    """What a trainer builds: its task, its data, and the training size of every row."""

    task: PreparedTask
    dataset: SampleDataset[Any]
    sizes: list[tuple[int, int]]


def train(config: TrainConfig, build: Callable[[Accelerator], Session]) -> None:
    """Run a trainer from its last checkpoint to its end.

    Raises: ConfigError when the output folder belongs to another run and nothing says to resume.
    """
    refuse_used_output(config)
    accelerator = make_accelerator(config)
    # Initial weights (LoRA, discriminator) come from the global generator; everything else is keyed.
    set_seed(config.seed)
    session = build(accelerator)
    plan = SamplingPlan(session.sizes, global_batch(config, accelerator), config.seed)
    steps = 1 if config.dry_run else total_steps(config, plan.steps_per_epoch)
    session.task.prepare(steps)
    trackers = start_output(config, accelerator)
    try:
        loop = TrainingLoop(
            config=config, accelerator=accelerator, task=session.task, trackers=trackers, total_steps=steps
        )
        start = loop.resume()
        batches = RankBatches(
            plan,
            start=start,
            stop=steps,
            rank=accelerator.process_index,
            world=accelerator.num_processes,
            micro_batch=config.train_batch_size,
        )
        loop.run(start, make_loader(session.dataset, batches, config.dataloader_num_workers))
    finally:
        trackers.close()
        accelerator.end_training()


def make_accelerator(config: TrainConfig) -> Accelerator:
    """Devices, processes and precision as launched."""
    if config.allow_tf32:
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
    # Buffers (spectral norm) evolve alike on every process; a broadcast mid-graph breaks double backward.
    parallel = DistributedDataParallelKwargs(broadcast_buffers=False)
    return Accelerator(mixed_precision=config.mixed_precision, kwargs_handlers=[parallel])


def start_output(config: TrainConfig, accelerator: Accelerator) -> Trackers:
    """Create the output folder with the resolved configuration, and open the logs."""
    if config.dry_run or not accelerator.is_main_process:
        return Trackers([])
    folder = Path(config.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    replace(config, resume_from_checkpoint="latest").save(folder / "config.yaml")
    return open_trackers(config, folder)


def refuse_used_output(config: TrainConfig) -> None:
    """Raises: ConfigError when the output folder holds checkpoints that the run would not continue."""
    folder = Path(config.output_dir)
    if any(folder.glob("checkpoint-*")) and config.resume_from_checkpoint is None:
        raise ConfigError(
            f"{folder} already holds checkpoints; continue with --resume_from_checkpoint latest, "
            "or choose another output_dir"
        )
