"""From a configuration to a finished run: what `stage1` and `stage2` have in common around the loop."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, set_seed

from training.config.base import Precision, TrainConfig
from training.data.plan import RankBatches, SamplingPlan
from training.data.samples import SampleDataset, make_loader
from training.errors import ConfigError
from training.files import only_writer
from training.loop import Task, TrainingLoop, global_batch, total_steps
from training.trackers import Trackers, open_trackers

logger = logging.getLogger(__name__)

ConfigT = TypeVar("ConfigT", bound=TrainConfig)

SETTLING_SECONDS = 0.1
# How `accelerate launch` asks for engines that split a network over processes.
SHARDED = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
}


class PreparedTask(Task, Protocol):
    """A task that creates its optimisers once the length of the run is known."""

    def prepare(self, total_steps: int) -> None:
        """Place the networks and create the optimisers of a run of so many steps."""
        ...


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
    accelerator = make_accelerator(config.mixed_precision, allow_tf32=config.allow_tf32)
    # Initial weights (LoRA, discriminator) come from the global generator; everything else is keyed.
    set_seed(config.seed % 2**32)
    session = build(accelerator)
    plan = SamplingPlan(session.sizes, global_batch(config, accelerator), config.seed)
    steps = total_steps(config, plan.steps_per_epoch)
    session.task.prepare(steps)
    with own_output(config, accelerator):
        loop = TrainingLoop(config=config, accelerator=accelerator, task=session.task, total_steps=steps)
        start, counted = loop.resume()
        if config.dry_run:
            # The next step, wherever the run is: a finished run has one more.
            loop.total_steps = steps = start + 1
        batches = RankBatches(
            plan,
            start=start,
            stop=steps,
            rank=accelerator.process_index,
            world=accelerator.num_processes,
            micro_batch=config.train_batch_size,
        )
        with opened_logs(config, accelerator, counted) as trackers:
            loop.run(start, make_loader(session.dataset, batches, config.dataloader_num_workers), trackers)


def leave(accelerator: Accelerator) -> None:
    """End this process's part in the group of processes."""
    if accelerator.num_processes > 1:
        # Gloo's thread needs the GIL to put away its last work, and the group's end waits for that thread
        # without letting go of the GIL: without a pause both may wait for ever.
        time.sleep(SETTLING_SECONDS)
    accelerator.end_training()


def make_accelerator(precision: Precision, *, allow_tf32: bool = False) -> Accelerator:
    """Devices and processes as launched, precision as configured.

    Raises: ConfigError for a launch with FSDP, DeepSpeed or Megatron-LM, and for fp16 without a GPU.
    """
    refuse_sharding()
    warn_of_launch_precision(precision)
    if allow_tf32:
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
    # Buffers (spectral norm) evolve alike on every process; a broadcast mid-graph breaks double backward.
    parallel = DistributedDataParallelKwargs(broadcast_buffers=False)
    accelerator = Accelerator(mixed_precision=precision, kwargs_handlers=[parallel])
    if precision == "fp16" and not accelerator.native_amp:
        # Accelerate would go on in float32 without a word.
        raise ConfigError(
            f"mixed_precision fp16 has no effect on {accelerator.device.type}; use bf16, or no for float32"
        )
    return accelerator


def refuse_sharding() -> None:
    """Raises: ConfigError when the launcher asks for an engine that splits the networks."""
    for variable, engine in SHARDED.items():
        if os.environ.get(variable, "").lower() in ("1", "true"):
            raise ConfigError(
                f"{engine} is not supported: both stages fit one 24 GB GPU and run on several with DDP; "
                "launch with `accelerate launch --multi_gpu`, or choose multi-GPU in `accelerate config`"
            )


def warn_of_launch_precision(precision: str) -> None:
    """The configuration decides, since it is what is saved beside the output; the launcher only suggests."""
    launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if launched not in ("no", precision):
        logger.warning(
            "accelerate was launched with mixed_precision %s, the run uses %s; set --mixed_precision",
            launched,
            precision,
        )


@contextmanager
def own_output(config: TrainConfig, accelerator: Accelerator) -> Iterator[None]:
    """The output folder, for this run alone; ends the run.

    Raises: ConfigError when another run is writing into the folder.
    """
    with ExitStack() as stack:
        if _writes(config, accelerator):
            folder = Path(config.output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(only_writer(folder))
        stack.callback(leave, accelerator)
        yield


@contextmanager
def opened_logs(config: TrainConfig, accelerator: Accelerator, done: int) -> Iterator[Trackers]:
    """The resolved configuration beside the output, and the logs, continued behind step `done`.

    Not before the run has its checkpoint: one that is refused leaves both as they were.
    """
    trackers = Trackers([])
    if _writes(config, accelerator):
        folder = Path(config.output_dir)
        replace(config, resume_from_checkpoint="latest").save(folder / "config.yaml")
        trackers = open_trackers(config, folder, done)
    with closing(trackers):
        yield trackers


def _writes(config: TrainConfig, accelerator: Accelerator) -> bool:
    return accelerator.is_main_process and not config.dry_run


def refuse_used_output(config: TrainConfig) -> None:
    """Raises: ConfigError when the output folder holds checkpoints that the run would not continue."""
    folder = Path(config.output_dir)
    if any(folder.glob("checkpoint-*")) and config.resume_from_checkpoint is None:
        raise ConfigError(
            f"{folder} already holds checkpoints; continue with --resume_from_checkpoint latest, "
            "or choose another output_dir"
        )
