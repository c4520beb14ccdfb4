"""A model in miniature, photos and triples for the whole session; no network, one thread."""

from __future__ import annotations

import functools
import importlib.util
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

NEEDED = ("accelerate", "datasets", "diffusers", "jsonargparse", "peft", "pyarrow", "transformers")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]
collect_ignore_glob = ["test_*.py"] if MISSING else []

SMALL: dict[str, dict[str, Any]] = {
    "stage1": {
        "resolution": 32,
        "train_batch_size": 2,
        "max_train_steps": 4,
        "lr_warmup_steps": 1,
        "lora_rank": 2,
        "discr_width": 16,
        "discr_depth": 2,
        "discr_start_step": 0,
        "checkpointing_steps": 1,
        "checkpoints_total_limit": None,
        "validation_steps": 0,
        "log_steps": 1,
        "report_to": "none",
        "dataloader_num_workers": 0,
    },
    "stage2": {
        "resolution": 32,
        "train_batch_size": 2,
        "max_train_steps": 4,
        "lr_warmup_steps": 1,
        "checkpointing_steps": 1,
        "checkpoints_total_limit": None,
        "validation_steps": 0,
        "log_steps": 1,
        "report_to": "none",
        "dataloader_num_workers": 0,
    },
    "triples": {"resolution": 64, "rows_per_shard": 2, "batch_size": 2, "decode_threads": 2},
}


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if MISSING:
        terminalreporter.write_line(
            f"tests/training was not run for want of {', '.join(MISSING)}: see training/requirements.txt"
        )


@pytest.fixture(autouse=True, scope="session")
def quiet_machine() -> Iterator[None]:
    """One thread: two would wait for each other on a busy machine. No connection leaves it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    os.environ["HF_HUB_OFFLINE"] = "1"
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def fresh_accelerator() -> Iterator[None]:
    """Accelerate keeps one state per process; tests want different precisions."""
    from accelerate.state import AcceleratorState

    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any attempt to connect fails the test."""

    def refuse(*_: Any) -> None:
        raise AssertionError("a connection was attempted")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def fp16_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What accelerate sets up on a GPU, autocast to float16 and a loss scaler, on the CPU."""
    import training.session

    def make(precision: str, **_: Any) -> Any:
        from accelerate import Accelerator

        accelerator = Accelerator(mixed_precision=precision)
        accelerator.native_amp = True
        # So high that the first updates overflow and are left out; then up and down again.
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**28, growth_interval=3)
        return accelerator

    monkeypatch.setattr(training.session, "make_accelerator", make)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pipeline folder of the model in miniature."""
    from training.tiny import make_base_model

    return make_base_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six captioned pictures."""
    from training.tiny import make_photos

    return make_photos(tmp_path_factory.mktemp("photos"), 6)


@pytest.fixture(scope="session")
def triples(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    """Triples of these pictures by the closed form."""
    from training.triples import run

    folder = tmp_path_factory.mktemp("triples")
    run(settings("triples", output_dir=folder, source=[photos], gain_source="analytic"))
    return folder


@pytest.fixture
def stage1(base: Path, photos: Path, tmp_path: Path) -> Callable[..., Any]:
    """Stage 1 settings for a run of four steps."""
    return functools.partial(
        settings,
        "stage1",
        pretrained_model_name_or_path=base,
        train_metadata=[photos],
        output_dir=tmp_path / "stage1",
    )


@pytest.fixture
def stage2(base: Path, triples: Path, tmp_path: Path) -> Callable[..., Any]:
    """Stage 2 settings for a run of four steps."""
    return functools.partial(
        settings,
        "stage2",
        pretrained_model_name_or_path=base,
        train_metadata=[triples],
        dataset_cache_dir=tmp_path / "datasets",
        output_dir=tmp_path / "stage2",
    )


def settings(command: str, preset: str = "improved", **changes: Any) -> Any:
    """A command's configuration: preset, then the small sizes of the tests, then `changes`."""
    from training.config import COMMANDS, PRESETS

    kind: type[Any] = COMMANDS[command]
    merged = {**PRESETS[preset].get(command, {}), **SMALL.get(command, {}), "preset": preset, **changes}
    return kind(**{name: plain(value) for name, value in merged.items()})


def plain(value: Any) -> Any:
    """Paths as the strings a command line would give."""
    if isinstance(value, Path):
        return str(value)
    return [plain(item) for item in value] if isinstance(value, list) else value


@pytest.fixture(scope="session")
def configure() -> Callable[..., Any]:
    """`settings` for any command."""
    return settings
