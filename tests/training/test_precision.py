"""Half precision: what runs, what is refused, and what a restart must not change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from training import session
from training.errors import ConfigError
from training.session import make_accelerator
from training.stage1.trainer import Stage1Task
from training.stage1.trainer import run as run_stage1
from training.stage2.trainer import run as run_stage2


def final_tensors(folder: Path) -> dict[str, torch.Tensor]:
    final = max(folder.glob("checkpoint-*"))
    files = sorted(final.rglob("*.safetensors"))
    return {f"{file.relative_to(final)}:{k}": v for file in files for k, v in load_file(file).items()}


def logged(folder: Path) -> list[dict[str, float]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line, parse_constant=pytest.fail) for line in lines]


def test_fp16_without_a_gpu_is_refused_and_not_ignored() -> None:
    with pytest.raises(ConfigError, match="fp16 has no effect on cpu; use bf16"):
        make_accelerator("fp16")


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("command", ["stage1", "stage2"])
def test_half_precision_trains_nearly_the_same_and_resumes_exactly(
    stage1: Any, stage2: Any, command: str, precision: str, tmp_path: Path, request: Any
) -> None:
    make, run = {"stage1": (stage1, run_stage1), "stage2": (stage2, run_stage2)}[command]
    run(make(output_dir=tmp_path / "full", max_train_steps=1))
    AcceleratorState._reset_state(reset_partial_state=True)
    if precision == "fp16":
        request.getfixturevalue("fp16_on_cpu")
    half = {"mixed_precision": precision, "max_train_steps": 16, "checkpointing_steps": 16}
    run(make(output_dir=tmp_path / "whole", **half))
    run(make(output_dir=tmp_path / "parts", **{**half, "max_train_steps": 10}))
    run(make(output_dir=tmp_path / "parts", resume_from_checkpoint="latest", **half))
    whole, parts = final_tensors(tmp_path / "whole"), final_tensors(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []
    term = {"stage1": "reconstruction_loss", "stage2": "loss"}[command]
    full, lines = logged(tmp_path / "full")[0], logged(tmp_path / "whole")
    assert lines[0][term] == pytest.approx(full[term], rel=0.02) and lines[0][term] != full[term]
    skipped = [line["skipped_steps"] for line in lines]
    assert (skipped[0] == 1) == (precision == "fp16") and skipped[-1] < len(lines)
    assert logged(tmp_path / "parts")[-1]["skipped_steps"] == skipped[-1]


def test_fp16_balances_losses_too_small_for_fp16(stage1: Any, fp16_on_cpu: None) -> None:
    config = stage1(mixed_precision="fp16")
    task = Stage1Task(config, session.make_accelerator("fp16"))
    task.prepare(1)
    task.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    target = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    explained = task.explain(target, [0]).sdr
    # A mean over large pictures gives every pixel this little.
    small = [1e-6 * explained.square().mean(), 1e-6 * explained.mean()]
    balance = float(task._balance(*small))
    task.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)
    assert balance == pytest.approx(float(task._balance(*small)), rel=0.02)
    assert 0.1 < balance < 10


@pytest.mark.parametrize("engine", ["FSDP", "DEEPSPEED", "MEGATRON_LM"])
def test_engines_that_split_the_networks_are_refused(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"ACCELERATE_USE_{engine}", "true")
    with pytest.raises(ConfigError, match="not supported.*--multi_gpu"):
        make_accelerator("no")


def test_a_precision_given_to_the_launcher_alone_is_not_silently_dropped(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    make_accelerator("no")
    assert "launched with mixed_precision bf16, the run uses no" in caplog.text
