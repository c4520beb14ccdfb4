"""The CPU recipe runs every command and leaves every kind of output."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.cli import main
from training.smoke import RECIPE, run_all

OUTPUTS = (
    "report/report.json",
    "stage1/config.yaml",
    "stage1/metrics.jsonl",
    "stage1/validation/step-00000004.png",
    "stage1/checkpoint-00000004/vae_adapter_ema/adapter_model.safetensors",
    "triples/_SUCCESS",
    "stage2/checkpoint-00000004/unet_ema/diffusion_pytorch_model.safetensors",
    "stage2/validation/step-00000004.png",
    "export/gm_unet.safetensors",
    "export/gm_vae.safetensors",
    "export/gm_vae_lora.safetensors",
    "generated/hdr_photo_000.exr",
    "generated/hdr_photo_000.jpg",
    "generated/config.yaml",
)


def test_a_launcher_of_several_processes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["smoke", "--output_dir", str(tmp_path / "work")]) == 1
    assert "runs in one process" in capsys.readouterr().err and not (tmp_path / "work").exists()


def test_the_recipe_runs_from_photos_to_hdr(tmp_path: Path, no_network: None) -> None:
    run_all(tmp_path, RECIPE)
    assert [name for name in OUTPUTS if not (tmp_path / name).is_file()] == []
