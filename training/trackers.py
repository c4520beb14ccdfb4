"""Where numbers and pictures of a run go. Nothing leaves the machine unless wandb is asked for."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from training.config.base import TrainConfig
from training.errors import ConfigError


class Tracker(Protocol):
    """A sink for scalars and for [3,H,W] pictures in [0,1]."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None: ...

    def picture(self, step: int, name: str, image: Tensor) -> None: ...

    def close(self) -> None: ...


class JsonLines:
    """One JSON object a line in `metrics.jsonl`; always on. A number that is not finite is null there.

    Args:
        path: an earlier log there is continued.
        done: the last step of the earlier log that does not run again; lines behind it are set aside.
    """

    def __init__(self, path: Path, done: int) -> None:
        self.path = path
        with _named(path):
            self.stream = path.open("a", encoding="utf-8", buffering=1)
            _set_aside(path, done)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        with _named(self.path):
            self.stream.write(json.dumps({"step": step, **finite}) + "\n")

    def picture(self, step: int, name: str, image: Tensor) -> None:
        """Pictures are files beside the log already."""

    def close(self) -> None:
        with _named(self.path):
            self.stream.close()


def _set_aside(path: Path, done: int) -> None:
    """Move the lines behind step `done` from the end of a log to a file beside it.

    From the end alone: with larger batches a run counts from a lower step, and what it logged before stays.
    """
    if path.stat().st_size == 0:
        return
    kept = size = 0
    with path.open("rb") as file:
        for line in file:
            size += len(line)
            if _step_of(line) <= done:
                kept = size
        file.seek(kept)
        again = file.read()
    if again:
        with path.with_name(f"{path.stem}-superseded{path.suffix}").open("ab") as file:
            file.write(again.removesuffix(b"\n") + b"\n")
        os.truncate(path, kept)


def _step_of(line: bytes) -> float:
    """The step of a line, behind all others where a kill or a full disk has cut it off."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError):
        return math.inf


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Writing does not say which file it failed for."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


class TensorBoard:
    """Event files in `logs/`; TensorBoard shows none of what earlier ones say of steps behind `done`."""

    def __init__(self, folder: Path, config: TrainConfig, done: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder), purge_step=done + 1)
        self.writer.add_text("config", f"```json\n{json.dumps(asdict(config), indent=1)}\n```")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def picture(self, step: int, name: str, image: Tensor) -> None:
        self.writer.add_image(name, image.clamp(0, 1), step)

    def close(self) -> None:
        self.writer.close()


class WeightsAndBiases:
    """The one tracker that sends data away; chosen by `report_to: wandb` only."""

    def __init__(self, folder: Path, config: TrainConfig) -> None:
        try:
            import wandb  # type: ignore[import-not-found]
        except ImportError as error:
            raise ConfigError("report_to wandb needs wandb: pip install wandb") from error
        self.wandb: Any = wandb
        self.run = wandb.init(project=config.tracker_project_name, dir=str(folder), config=asdict(config))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def picture(self, step: int, name: str, image: Tensor) -> None:
        self.run.log({name: self.wandb.Image(image.clamp(0, 1))}, step=step)

    def close(self) -> None:
        self.run.finish()


def average(results: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each number over the results that have it."""
    names = dict.fromkeys(name for values in results for name in values)
    found = {name: [values[name] for values in results if name in values] for name in names}
    return {name: sum(numbers) / len(numbers) for name, numbers in found.items()}


class Trackers:
    """Several trackers as one; empty on all but the main process and in a dry run."""

    def __init__(self, trackers: list[Tracker]) -> None:
        self.trackers = trackers

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        # A validation without pictures has no figures: no line either, rather than an empty one.
        for tracker in self.trackers if values else []:
            tracker.scalars(step, values)

    def picture(self, step: int, name: str, image: Tensor) -> None:
        for tracker in self.trackers:
            tracker.picture(step, name, image)

    def close(self) -> None:
        for tracker in self.trackers:
            tracker.close()


def open_trackers(config: TrainConfig, folder: Path, done: int) -> Trackers:
    """The JSONL log and what `report_to` names, for a run that goes on behind step `done` of earlier logs."""
    trackers: list[Tracker] = [JsonLines(folder / "metrics.jsonl", done)]
    if config.report_to == "tensorboard":
        trackers.append(TensorBoard(folder / "logs", config, done))
    elif config.report_to == "wandb":
        trackers.append(WeightsAndBiases(folder, config))
    return Trackers(trackers)
