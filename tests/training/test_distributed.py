"""Two processes with gloo train what one process trains on the same global batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from training.config import Stage1Config, Stage2Config
from training.data.table import ListTable
from training.session import leave, make_accelerator
from training.stage1.trainer import Stage1Task
from training.stage1.trainer import run as run_stage1
from training.stage2.trainer import Stage2Task
from training.stage2.trainer import run as run_stage2

ROOT = Path(__file__).resolve().parents[2]
BOTH_STAGES = Path(__file__).with_name("train_both_stages.py")
UNEVEN_ROWS = Path(__file__).with_name("loop_on_uneven_rows.py")
TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc_per_node=2")
# --multi_gpu, as our README says; ACCELERATE_USE_CPU makes gloo processes of it. With --cpu, accelerate
# starts a single one. Port 0 is a free port.
ACCELERATE = (
    *("accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--num_machines=1"),
    *("--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0"),
)


def launch(launcher: tuple[str, ...], script: Path, argument: Path) -> None:
    command = [sys.executable, "-m", *launcher]
    environment = {
        **os.environ,
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(ROOT),
    }
    result = subprocess.run(
        [*command, str(script), str(argument)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=480,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-8000:]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    final = max(folder.glob("checkpoint-*"))
    names = ("adapter_model.safetensors", "diffusion_pytorch_model.safetensors")
    files = [file for name in names for file in sorted(final.rglob(name))]
    return {f"{file.relative_to(final)}:{k}": v for file in files for k, v in load_file(file).items()}


@pytest.fixture
def plan(stage1: Any, stage2: Any, photos: Path, tmp_path: Path, configure: Any) -> Any:
    from dataclasses import asdict

    def make(name: str, batch: int) -> dict[str, Any]:
        shared = {"train_batch_size": batch, "gradient_accumulation_steps": 2, "max_train_steps": 2}
        return {
            "stage1": asdict(stage1(output_dir=tmp_path / name / "stage1", **shared)),
            "stage2": asdict(stage2(output_dir=tmp_path / name / "stage2", **shared)),
            "triples": asdict(
                configure(
                    "triples", output_dir=tmp_path / name / "triples", source=[photos], gain_source="analytic"
                )
            ),
        }

    return make


@pytest.mark.parametrize(
    "launcher",
    [
        pytest.param(TORCHRUN, id="torchrun"),
        pytest.param(ACCELERATE, id="accelerate", marks=pytest.mark.slow),
    ],
)
def test_two_processes_equal_one(plan: Any, triples: Path, tmp_path: Path, launcher: tuple[str, ...]) -> None:
    (tmp_path / "plan.json").write_text(json.dumps(plan("two", 1)))
    launch(launcher, BOTH_STAGES, tmp_path / "plan.json")
    alone = plan("one", 2)
    run_stage1(Stage1Config(**alone["stage1"]))
    run_stage2(Stage2Config(**alone["stage2"]))
    for stage in ("stage1", "stage2"):
        one, two = weights(tmp_path / "one" / stage), weights(tmp_path / "two" / stage)
        assert one.keys() == two.keys() and len(one) > 20
        # Adam turns rounding of tiny gradients into steps of the learning rate's size; few values have those.
        apart = torch.cat([(one[name] - two[name]).abs().flatten() for name in one])
        assert apart.max() < 5e-4 and (apart > 1e-6).float().mean() < 0.01, stage
    shards = {path.name: path.read_bytes() for path in (tmp_path / "two" / "triples").glob("*.parquet")}
    assert shards == {path.name: path.read_bytes() for path in triples.glob("*.parquet")}


def test_other_threads_put_their_work_away_before_the_group_ends() -> None:
    """The group's end joins gloo's thread and holds the GIL; a long interval shows who waits for whom."""
    done, may_go, interval = threading.Event(), threading.Lock(), sys.getswitchinterval()
    may_go.acquire()
    thread = threading.Thread(target=lambda: (may_go.acquire(), done.set()))
    thread.start()
    seen: list[bool] = []
    group: Any = SimpleNamespace(num_processes=2, end_training=lambda: seen.append(done.is_set()))
    sys.setswitchinterval(60)
    try:
        may_go.release()
        leave(group)
    finally:
        sys.setswitchinterval(interval)
    thread.join()
    assert seen == [True]


def test_unusable_rows_are_judged_over_all_processes_and_stop_all_of_them(tmp_path: Path) -> None:
    launch(TORCHRUN, UNEVEN_ROWS, tmp_path)
    first, second = (json.loads((tmp_path / f"process-{rank}.json").read_text()) for rank in (0, 1))
    assert first["half"] == second["half"] == "done"
    assert first["less"] == second["less"]
    assert first["less"].startswith("198 of 400 rows are unusable (missing_file 198)")
    assert "another process" in first["ends"] and second["ends"] == "64 rows in a row are unusable"
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()[:3]]
    assert [line["rejected"] for line in lines] == [99, 198, 297]
    assert lines[0]["loss"] == 1.5 and lines[0]["supervised_loss"] == 2.5


@pytest.mark.parametrize("command", ["stage1", "stage2"])
def test_pictures_to_validate_on_are_loaded_by_the_process_that_validates(
    stage1: Any, stage2: Any, command: str, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make: Any = {"stage1": stage1, "stage2": stage2}[command]
    config = make(validation_steps=1, validation_image_dir=photos)

    def build(accelerator: Accelerator) -> Any:
        if command == "stage1":
            return Stage1Task(config, accelerator).validation
        return Stage2Task(config, accelerator, ListTable([])).validation

    assert build(make_accelerator("no")) is not None
    monkeypatch.setattr(Accelerator, "is_main_process", property(lambda _: False))
    assert build(make_accelerator("no")) is None
