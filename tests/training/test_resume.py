"""Runs that stop, crash and go on end where the uninterrupted run ends."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import training.loop
from training.checkpoint import CheckpointStore
from training.cli import main
from training.errors import CheckpointError, ConfigError, NonFiniteLossError, TrainingInterrupted
from training.gm_unet import WEIGHTS
from training.loop import stop_on_signal
from training.stage1.trainer import Stage1Task
from training.stage1.trainer import run as run_stage1
from training.stage2.trainer import Stage2Task
from training.stage2.trainer import run as run_stage2

STEPS = 4
WITH_WORKERS = Path(__file__).with_name("stop_with_workers.py")
TASKS = {"stage1": Stage1Task, "stage2": Stage2Task}
RUN = {"stage1": run_stage1, "stage2": run_stage2}
Configs = dict[str, Callable[..., Any]]


class CrashError(Exception):
    """Stands for a power cut in the middle of a step."""


@pytest.fixture
def configs(stage1: Callable[..., Any], stage2: Callable[..., Any]) -> Configs:
    return {"stage1": stage1, "stage2": stage2}


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of the final checkpoint: weights, averages, optimiser."""
    final = folder / f"checkpoint-{STEPS:08d}"
    files = sorted(final.rglob("*.safetensors"))
    assert len(files) >= 3
    return {f"{file.relative_to(final)}:{k}": v for file in files for k, v in load_file(file).items()}


def crash_at(monkeypatch: pytest.MonkeyPatch, command: str, step: int) -> None:
    """The step's update is computed, and lost."""
    original = TASKS[command].update

    def update(self: Any, number: int, batches: Any) -> dict[str, float]:
        values = original(self, number, batches)
        if number == step:
            raise CrashError
        return values

    monkeypatch.setattr(TASKS[command], "update", update)


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("command", ["stage1", "stage2"])
def test_killed_twice_and_resumed_equals_uninterrupted(
    configs: Configs, command: str, accumulation: int, tmp_path: Path
) -> None:
    make, run = configs[command], RUN[command]
    common = {"gradient_accumulation_steps": accumulation, "train_batch_size": 2}
    run(make(output_dir=tmp_path / "whole", **common))
    for step in (1, 3):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(CrashError):
            crash_at(patch, command, step)
            run(make(output_dir=tmp_path / "parts", resume_from_checkpoint="latest", **common))
    run(make(output_dir=tmp_path / "parts", resume_from_checkpoint="latest", **common))
    whole, parts = weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []


def test_resuming_with_a_latent_cache_changes_nothing(configs: Configs, tmp_path: Path) -> None:
    common = {"cache_latents": True, "cache_variants": 2, "dataset_cache_dir": tmp_path / "cache"}
    run_stage2(configs["stage2"](output_dir=tmp_path / "whole", **common))
    # The second run finds every latent in the cache, the first one found none.
    run_stage2(configs["stage2"](output_dir=tmp_path / "again", **common))
    whole, again = weights_of(tmp_path / "whole"), weights_of(tmp_path / "again")
    assert [name for name in whole if not torch.equal(whole[name], again[name])] == []


def test_steps_that_run_again_are_logged_once(configs: Configs, tmp_path: Path) -> None:
    common = {"output_dir": tmp_path / "run", "checkpointing_steps": 2, "resume_from_checkpoint": "latest"}
    with pytest.MonkeyPatch.context() as patch, pytest.raises(CrashError):
        crash_at(patch, "stage2", 3)
        run_stage2(configs["stage2"](**common))
    run_stage2(configs["stage2"](**common))
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4]


def test_a_corrupt_newest_checkpoint_falls_back_and_says_so(
    configs: Configs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_stage2(configs["stage2"](output_dir=tmp_path / "whole"))
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    expected = weights_of(tmp_path / "whole")
    newest = tmp_path / "parts" / f"checkpoint-{STEPS:08d}" / "unet" / "diffusion_pytorch_model.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1] + b"?")
    with caplog.at_level(logging.INFO):
        run_stage2(configs["stage2"](output_dir=tmp_path / "parts", resume_from_checkpoint="latest"))
    assert "falling back" in caplog.text and "step 3" in caplog.text
    found = weights_of(tmp_path / "parts")
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []


def test_sigterm_saves_and_the_run_goes_on(
    configs: Configs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_stage2(configs["stage2"](output_dir=tmp_path / "whole"))
    original = Stage2Task.update

    def update(self: Any, number: int, batches: Any) -> dict[str, float]:
        if number == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, number, batches)

    monkeypatch.setattr(Stage2Task, "update", update)
    rare = {"checkpointing_steps": 100, "output_dir": tmp_path / "parts"}
    with pytest.raises(TrainingInterrupted, match="step 2"):
        run_stage2(configs["stage2"](**rare))
    assert [path.name for path in CheckpointStore(tmp_path / "parts").all()] == ["checkpoint-00000002"]
    monkeypatch.undo()
    run_stage2(configs["stage2"](**rare, resume_from_checkpoint="latest"))
    whole, parts = weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts")
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []


def test_a_signal_that_is_passed_on_is_one_request_and_a_later_one_acts_as_usual(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # Shells ignore it for background jobs.
    # However long this process waits for its turn, the second one comes at once.
    monkeypatch.setattr(training.loop, "ECHO_SECONDS", 3600.0)
    with stop_on_signal() as stop:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.requested
        monkeypatch.setattr(training.loop, "ECHO_SECONDS", 0.0)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler


def with_workers(config: Any, tmp_path: Path, failure: str = "") -> subprocess.CompletedProcess[str]:
    """A run with data workers in a process group of its own, which gets SIGTERM unless the run fails."""
    (tmp_path / "settings.json").write_text(json.dumps(asdict(config)))
    root = Path(__file__).resolve().parents[2]
    return subprocess.run(
        [sys.executable, str(WITH_WORKERS), str(tmp_path / "settings.json"), failure],
        env={**os.environ, "PYTHONPATH": str(root), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""},
        start_new_session=True,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_sigterm_for_the_whole_process_group_saves_too(configs: Configs, tmp_path: Path) -> None:
    rare = {"checkpointing_steps": 100, "dataloader_num_workers": 2, "max_train_steps": 40}
    result = with_workers(configs["stage2"](output_dir=tmp_path / "run", **rare), tmp_path)
    assert "stopped by a signal at step 2; state saved" in result.stdout, result.stderr[-4000:]
    assert [path.name for path in CheckpointStore(tmp_path / "run").all()] == ["checkpoint-00000002"]


def test_workers_end_with_a_run_that_fails(configs: Configs, tmp_path: Path) -> None:
    config = configs["stage2"](output_dir=tmp_path / "run", dataloader_num_workers=2, max_train_steps=40)
    # A worker that outlived the run would hold its output open.
    result = with_workers(config, tmp_path, failure="out of memory")
    assert result.returncode == 1 and result.stderr.rstrip().endswith("RuntimeError: out of memory")


def test_a_full_disk_keeps_the_checkpoint_before(
    configs: Configs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Stage2Task.save

    def save(self: Any, folder: Path) -> None:
        original(self, folder)
        if "00000003" in folder.name:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(Stage2Task, "save", save)
    with pytest.raises(CheckpointError, match="No space left"):
        run_stage2(configs["stage2"](output_dir=tmp_path / "run"))
    latest = CheckpointStore(tmp_path / "run").latest()
    assert latest is not None and latest.name == "checkpoint-00000002"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
@pytest.mark.parametrize("command", ["stage2", "validate"])
def test_a_disk_that_is_full_while_logging_ends_the_run_with_one_line(
    stage2: Callable[..., Any],
    command: str,
    triples: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = ["--source", str(triples), "--output_dir", str(tmp_path / "run")]
    if command == "stage2":
        stage2(output_dir=tmp_path / "run").save(tmp_path / "config.yaml")
        flags = ["--config", str(tmp_path / "config.yaml")]
    (tmp_path / "run").mkdir()
    log = tmp_path / "run" / {"stage2": "metrics.jsonl", "validate": "report.json"}[command]
    log.symlink_to("/dev/full")
    assert main([command, *flags]) == 1
    named = f"{log}: " if command == "stage2" else ""
    assert f"error: {named}No space left on device\n" in capsys.readouterr().err


def test_the_data_position_survives_another_batch_size(configs: Configs, tmp_path: Path) -> None:
    run_stage2(configs["stage2"](output_dir=tmp_path / "run", max_train_steps=2, train_batch_size=4))
    run_stage2(
        configs["stage2"](
            output_dir=tmp_path / "run",
            max_train_steps=5,
            train_batch_size=2,
            resume_from_checkpoint="latest",
        )
    )
    state = json.loads((tmp_path / "run" / "checkpoint-00000005" / "state.json").read_text())
    assert state["samples_seen"] == 10
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 5]


@pytest.mark.parametrize(
    "change", [{"lora_rank": 4}, {"discr_width": 32}, {"adversarial_weight": 1.0}], ids=lambda c: [*c][0]
)
def test_a_checkpoint_of_other_networks_is_refused_by_name(
    configs: Configs, tmp_path: Path, change: dict[str, Any]
) -> None:
    playing = 0.0 if "adversarial_weight" in change else 1.0
    common = {"output_dir": tmp_path / "run", "max_train_steps": 1, "adversarial_weight": playing}
    run_stage1(configs["stage1"](**common))
    kept = {name: (tmp_path / "run" / name).read_text() for name in ("config.yaml", "metrics.jsonl")}
    with pytest.raises(CheckpointError, match="checkpoint-00000001 does not fit this configuration"):
        run_stage1(configs["stage1"](**{**common, "resume_from_checkpoint": "latest", **change}))
    assert kept == {name: (tmp_path / "run" / name).read_text() for name in kept}


def test_an_average_that_begins_late_begins_at_the_weights(configs: Configs, tmp_path: Path) -> None:
    common = {"output_dir": tmp_path / "run", "learning_rate": 0.1}
    run_stage2(configs["stage2"](**common, max_train_steps=1, use_ema=False))
    last = {"learning_rate": 0.0, "max_train_steps": 2, "use_ema": True, "resume_from_checkpoint": "latest"}
    run_stage2(configs["stage2"](**{**common, **last}))
    folder = tmp_path / "run" / "checkpoint-00000002"
    weights, average = (load_file(folder / name / WEIGHTS) for name in ("unet", "unet_ema"))
    assert all(torch.equal(weights[name], average[name]) for name in weights)


def test_a_finished_folder_is_not_overwritten_by_accident(configs: Configs, tmp_path: Path) -> None:
    run_stage2(configs["stage2"](output_dir=tmp_path / "run", max_train_steps=1))
    with pytest.raises(ConfigError, match="already holds checkpoints"):
        run_stage2(configs["stage2"](output_dir=tmp_path / "run", max_train_steps=1))


class PoisonedLoss:
    """Makes the loss of chosen steps NaN."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, steps: set[int]) -> None:
        original, self.step = Stage2Task.update, -1

        def update(task: Any, number: int, batches: Any) -> dict[str, float]:
            self.step = number
            return original(task, number, batches)

        loss = Stage2Task.loss
        monkeypatch.setattr(Stage2Task, "update", update)
        monkeypatch.setattr(
            Stage2Task,
            "loss",
            lambda task, batch: loss(task, batch) * (float("nan") if self.step in steps else 1),
        )


def test_a_nan_stops_the_run_with_finite_weights(
    configs: Configs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    PoisonedLoss(monkeypatch, {2})
    with pytest.raises(NonFiniteLossError, match="step 2"):
        run_stage2(configs["stage2"](output_dir=tmp_path / "run"))
    latest = CheckpointStore(tmp_path / "run").latest()
    assert latest is not None and latest.name == "checkpoint-00000002"


def test_a_nan_is_left_out_under_the_skip_policy(
    configs: Configs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    PoisonedLoss(monkeypatch, {1})
    run_stage2(configs["stage2"](output_dir=tmp_path / "run", on_nonfinite="skip"))
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    values = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    assert [line["skipped_steps"] for line in values] == [0, 1, 1, 1]
    assert values[1]["loss"] is None and None not in values[2].values()
    assert all(torch.isfinite(value.float()).all() for value in weights_of(tmp_path / "run").values())


@pytest.mark.parametrize("poisoned, stops", [({0, 2}, False), ({1, 2}, True)])
def test_only_bad_steps_in_a_row_stop_a_run_that_skips_them(
    configs: Configs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, poisoned: set[int], stops: bool
) -> None:
    PoisonedLoss(monkeypatch, poisoned)
    config = configs["stage2"](output_dir=tmp_path / "run", on_nonfinite="skip", max_nonfinite_steps=1)
    with pytest.raises(NonFiniteLossError, match="step 2.*2 in a row") if stops else nullcontext():
        run_stage2(config)


@pytest.mark.parametrize("command", ["stage1", "stage2"])
def test_a_dry_run_writes_nothing(configs: Configs, command: str, tmp_path: Path, no_network: None) -> None:
    RUN[command](
        configs[command](output_dir=tmp_path / "run", dry_run=True, cache_latents=True)
        if command == "stage2"
        else configs[command](output_dir=tmp_path / "run", dry_run=True)
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("done", [1, STEPS])
def test_a_dry_run_of_a_resumed_run_tries_its_next_step(
    configs: Configs, done: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = {"output_dir": tmp_path / "run", "checkpointing_steps": done}
    run_stage2(configs["stage2"](**common, max_train_steps=done))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    tried: list[int] = []
    update = Stage2Task.update

    def noted(self: Any, number: int, batches: Any) -> dict[str, float]:
        tried.append(number)
        return update(self, number, batches)

    monkeypatch.setattr(Stage2Task, "update", noted)
    run_stage2(configs["stage2"](**common, dry_run=True, resume_from_checkpoint="latest"))
    assert tried == [done]
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}


def test_the_8_bit_optimiser_resumes_too(configs: Configs, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    run_stage2(configs["stage2"](output_dir=tmp_path / "whole", use_8bit_adam=True))
    run_stage2(configs["stage2"](output_dir=tmp_path / "parts", use_8bit_adam=True, max_train_steps=2))
    run_stage2(
        configs["stage2"](output_dir=tmp_path / "parts", use_8bit_adam=True, resume_from_checkpoint="latest")
    )
    whole, parts = weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts")
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []


def test_the_8_bit_optimiser_without_its_library_stops_before_anything_is_written(
    configs: Configs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ConfigError, match="pip install bitsandbytes"):
        run_stage2(configs["stage2"](output_dir=tmp_path / "run", use_8bit_adam=True))
    assert not (tmp_path / "run").exists()
