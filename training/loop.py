"""The loop both trainers share: step, log, validate, checkpoint, stop when asked."""

from __future__ import annotations

import json
import logging
import math
import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from gm_core.errors import GainMapError
from training.checkpoint import CheckpointStore
from training.config.base import TrainConfig
from training.data.rows import RejectCounter
from training.data.samples import Loaded
from training.errors import CheckpointError, DatasetError, NonFiniteLossError, TrainingInterrupted
from training.trackers import Trackers, average

logger = logging.getLogger(__name__)

STATE = "state.json"
# A half-precision loss scaler halves itself from 65536 until gradients fit; that is not a failure.
SCALER_PATIENCE = 20
# A scheduler signals every process, and a launcher among them passes it on: one request, heard twice.
ECHO_SECONDS = 2.0


class Task(Protocol):
    """What a trainer adds to the loop."""

    def update(self, step: int, batches: Sequence[Any]) -> dict[str, float]:
        """One optimiser step over this process's micro-batches.

        Returns: numbers to log, and `skipped`: 1 when a non-finite gradient left the weights as they were.
        """
        ...

    def save(self, folder: Path) -> None:
        """Write weights and optimiser state into a checkpoint folder."""

    def load(self, folder: Path) -> None:
        """Read back what `save` wrote."""

    def validate(self, step: int, trackers: Trackers) -> dict[str, float]:
        """Measure the model; returns numbers to log."""
        ...


class Position(NamedTuple):
    """Where a run goes on: the step that comes next, and how many the run had counted when it was saved.

    They differ where the global batch is another one now.
    """

    step: int
    counted: int


class TrainingLoop:
    """Runs a task from its checkpoint to `total_steps`.

    Raises: NonFiniteLossError by the policy in the configuration, DatasetError when too many rows of all
    processes together are unusable, TrainingInterrupted after a signal (with everything saved),
    CheckpointError when a checkpoint cannot be written.
    """

    def __init__(
        self,
        *,
        config: TrainConfig,
        accelerator: Accelerator,
        task: Task,
        total_steps: int,
    ) -> None:
        self.config = config
        self.accelerator = accelerator
        self.task = task
        self.total_steps = total_steps
        self.store = CheckpointStore(Path(config.output_dir), config.checkpoints_total_limit)
        self.global_batch = global_batch(config, accelerator)
        self.rejects = RejectCounter(config.max_reject_fraction)
        self.skipped = 0
        self.skipped_in_a_row = 0

    def resume(self) -> Position:
        """Load the checkpoint the configuration names.

        Raises: CheckpointError when there is none, or none of the networks that the configuration describes.
        """
        folder = self.store.resolve(self.config.resume_from_checkpoint)
        if folder is None:
            return Position(0, 0)
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        try:
            self.task.load(folder)
        except (OSError, RuntimeError, KeyError, GainMapError) as error:
            # The files are whole: what differs is what the configuration makes of them.
            raise CheckpointError(
                f"{folder} does not fit this configuration: {error}; compare it with {folder / 'config.yaml'}"
            ) from error
        self.skipped = state.get("skipped_steps", 0)
        # The position in the data is counted in samples: the world may have changed size since.
        step = state["samples_seen"] // self.global_batch
        logger.info("resumed %s: step %d, %d samples seen", folder, step, state["samples_seen"])
        return Position(step, state["step"])

    def run(self, start: int, batches: Iterable[list[Loaded[Any]]], trackers: Trackers) -> None:
        """Train from `start`; `batches` yields micro-batches of this process from there on."""
        source = iter(batches)
        with stop_on_signal() as stop:
            clock = Stopwatch(self.global_batch)
            for step in range(start, self.total_steps):
                values = self.task.update(step, self._fetch(source))
                self._guard(step, skipped=values.pop("skipped") > 0)
                done = step + 1
                clock.tick()
                if done % self.config.log_steps == 0 or done == self.total_steps:
                    self._log(done, values | clock.rates(), trackers)
                self._validate(done, trackers)
                interrupted = self._sum(int(stop.requested))[0] > 0
                if interrupted or done % self.config.checkpointing_steps == 0 or done == self.total_steps:
                    self._checkpoint(done)
                if interrupted and done < self.total_steps:
                    raise TrainingInterrupted(
                        f"stopped by a signal at step {done}; state saved, resume with latest"
                    )

    def _fetch(self, source: Iterator[list[Loaded[Any]]]) -> list[list[Loaded[Any]]]:
        """The micro-batches of a step. Unusable data stops all processes at the same place, or none."""
        micro, failure = [], None
        try:
            micro = [next(source) for _ in range(self.config.gradient_accumulation_steps)]
        except DatasetError as error:
            failure = error
        for loaded in (loaded for batch in micro for loaded in batch):
            self.rejects.add(1 + len(loaded.rejects), loaded.rejects)
        failures, suspicious = self._sum(int(failure is not None), int(self.rejects.too_many))
        if failures:
            raise failure or DatasetError("another process found no usable row; its message says more")
        if suspicious:
            everyone = self._everyones_rejects()
            if everyone.too_many:
                everyone.check()
        return micro

    def _guard(self, step: int, *, skipped: bool) -> None:
        if not skipped:
            self.skipped_in_a_row = 0
            return
        self.skipped += 1
        self.skipped_in_a_row += 1
        scaled = self.accelerator.scaler is not None
        patience = SCALER_PATIENCE if scaled else 0
        if self.config.on_nonfinite == "skip":
            patience = max(patience, self.config.max_nonfinite_steps)
        logger.warning(
            "step %d: non-finite gradient, update left out (%d in a row)", step, self.skipped_in_a_row
        )
        if self.skipped_in_a_row > patience:
            raise NonFiniteLossError(
                f"step {step}: non-finite gradient ({self.skipped_in_a_row} in a row); the weights are "
                "unchanged. Lower learning_rate, use bf16 instead of fp16, or set on_nonfinite: skip"
            )

    def _log(self, step: int, values: Mapping[str, float], trackers: Trackers) -> None:
        everyones = gather_object([dict(values)])
        # A term is missing, which is 0, where none of a process's samples has ground truth.
        names = dict.fromkeys(name for found in everyones for name in found)
        averaged = average([dict.fromkeys(names, 0.0) | found for found in everyones])
        averaged["rejected"] = float(self._everyones_rejects().total)
        averaged["skipped_steps"] = float(self.skipped)
        trackers.scalars(step, averaged)
        if self.accelerator.is_main_process:
            shown = "  ".join(f"{name} {value:.4g}" for name, value in averaged.items())
            remaining = (
                (self.total_steps - step) * self.global_batch / max(averaged["images_per_second"], 1e-9)
            )
            logger.info("step %d/%d  %s  left %s", step, self.total_steps, shown, format_duration(remaining))

    def _validate(self, step: int, trackers: Trackers) -> None:
        every = self.config.validation_steps
        if every and (step % every == 0 or step == self.total_steps) and not self.config.dry_run:
            if self.accelerator.is_main_process:
                trackers.scalars(step, self.task.validate(step, trackers))
            self.accelerator.wait_for_everyone()

    def _checkpoint(self, step: int) -> None:
        if self.config.dry_run:
            return
        if self.accelerator.is_main_process:
            self.store.save(step, lambda folder: self._write(step, folder))
        self.accelerator.wait_for_everyone()

    def _write(self, step: int, folder: Path) -> None:
        self.task.save(folder)
        self.config.save(folder / "config.yaml")
        state = {
            "step": step,
            "samples_seen": step * self.global_batch,
            "skipped_steps": self.skipped,
            "seed": self.config.seed,
        }
        (folder / STATE).write_text(json.dumps(state), encoding="utf-8")

    def _everyones_rejects(self) -> RejectCounter:
        """The counters of all processes as one; all of them have to ask."""
        everyone = RejectCounter(self.config.max_reject_fraction)
        for counter in gather_object([self.rejects]):
            everyone.merge(counter)
        return everyone

    def _sum(self, *counts: int) -> list[int]:
        """Each count summed over the processes."""
        if self.accelerator.num_processes == 1:
            return list(counts)
        stacked = torch.tensor(counts, device=self.accelerator.device, dtype=torch.float64)
        reduced: Any = self.accelerator.reduce(stacked, reduction="sum")
        return [int(count) for count in reduced.tolist()]


class Stopwatch:
    """Images per second since the last look, and the peak of device memory."""

    def __init__(self, images_per_step: int) -> None:
        self.images_per_step = images_per_step
        self.started = time.perf_counter()
        self.steps = 0

    def tick(self) -> None:
        """A step is done."""
        self.steps += 1

    def rates(self) -> dict[str, float]:
        """`images_per_second` over all processes since the last call; on a GPU `peak_memory_gib` too."""
        now = time.perf_counter()
        rate = self.steps * self.images_per_step / max(now - self.started, 1e-9)
        self.started, self.steps = now, 0
        rates = {"images_per_second": rate}
        if torch.cuda.is_available():
            rates["peak_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
        return rates


class StopRequest:
    """Set by SIGTERM or SIGINT; another signal after ECHO_SECONDS acts as usual."""

    requested = False


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Turn the first SIGTERM or SIGINT into a request that the loop honours after its step."""
    request = StopRequest()
    previous = {}
    heard = math.inf

    def restore() -> None:
        for signum, handler in previous.items():
            signal.signal(signum, handler)

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal heard
        if not request.requested:
            request.requested, heard = True, time.monotonic()
        elif time.monotonic() - heard > ECHO_SECONDS:
            restore()
            signal.raise_signal(number)

    for signum in (signal.SIGTERM, signal.SIGINT):
        previous[signum] = signal.signal(signum, ask)
    try:
        yield request
    finally:
        restore()


def global_batch(config: TrainConfig, accelerator: Accelerator) -> int:
    """Samples per optimiser step over all processes."""
    return config.train_batch_size * config.gradient_accumulation_steps * accelerator.num_processes


def total_steps(config: TrainConfig, steps_per_epoch: int) -> int:
    """Length of the run in optimiser steps."""
    return config.max_train_steps or config.num_train_epochs * steps_per_epoch


def format_duration(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    whole = int(seconds) if math.isfinite(seconds) else 0
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
