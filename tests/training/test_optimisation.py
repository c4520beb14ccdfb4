"""Learning-rate curves, what a step does, and the optimiser's state on disk."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from training.optimisation import Optimisation, _flat, _grouped, learning_rate_curve
from training.stage1.trainer import run as run_stage1
from training.stage2.trainer import run as run_stage2


@pytest.mark.parametrize(
    "kind, expected",
    [
        ("constant", [1, 1, 1, 1]),
        ("constant_with_warmup", [0.5, 1, 1, 1]),
        ("linear", [0.5, 1, 0.5, 0]),
        ("cosine", [0.5, 1, 0.5, 0]),
        ("polynomial", [0.5, 1, 0.5, 0]),
    ],
)
def test_curves(kind: str, expected: list[float]) -> None:
    curve = learning_rate_curve(kind, warmup=2, total=10)
    assert [curve(step) for step in (0, 2, 6, 10)] == pytest.approx(expected)


def test_nested_optimiser_state_has_one_path_per_leaf_and_comes_back() -> None:
    state = {"step": 3, "tables": {"q1": 1.0, "deep": {"q2": 2.0}}}
    paths = dict(_flat(state))
    assert paths == {"step": 3, "tables|q1": 1.0, "tables|deep|q2": 2.0}
    labelled = {f"down.0.weight|{path}": value for path, value in paths.items()}
    assert _grouped({**labelled, "down.0.weight|ema": 0.0}, {"down.0.weight": 7}) == {7: state}


def test_the_cosine_is_flat_at_both_ends_and_falling_curves_stay_at_zero() -> None:
    cosine, linear = (learning_rate_curve(kind, warmup=0, total=8) for kind in ("cosine", "linear"))
    assert [cosine(step) for step in (0, 2, 6, 9)] == pytest.approx([1, 0.8536, 0.1464, 0], abs=1e-4)
    assert [linear(step) for step in (0, 2, 6, 9)] == pytest.approx([1, 0.75, 0.25, 0])


@pytest.fixture
def config(configure: Callable[..., Any]) -> Any:
    return configure(
        "stage2",
        pretrained_model_name_or_path="m",
        train_metadata=["a"],
        output_dir="o",
        train_batch_size=3,
        gradient_accumulation_steps=4,
        lr_scheduler="linear",
        lr_warmup_steps=2,
        max_grad_norm=0.5,
        adam_beta1=0.7,
        adam_beta2=0.9,
        adam_weight_decay=0.3,
        adam_epsilon=1e-3,
        ema_decay=0.5,
        scale_lr=True,
    )


@pytest.mark.parametrize("auxiliary", [False, True])
def test_a_step_is_adamw_s_with_the_clipped_gradient(config: Any, auxiliary: bool) -> None:
    layer = nn.Linear(3, 2)
    twin = copy.deepcopy(layer)
    arguments = {"accelerator": Accelerator(), "config": config, "total_steps": 6, "auxiliary": auxiliary}
    optimisation = Optimisation(module=layer, rate=1e-3, **arguments)
    reference = torch.optim.AdamW(twin.parameters(), betas=(0.7, 0.9), weight_decay=0.3, eps=1e-3)
    # One process, so 12 samples a step.
    for step, (size, factor) in enumerate([(0.01, 0.5), (100.0, 1.0), (0.3, 1.0), (0.1, 0.75)]):
        for network in (layer, twin):
            (size * network(torch.tensor([1.0, -2.0, 3.0])).square().sum()).backward()
        norm = torch.stack([p.grad.norm() for p in twin.parameters()]).norm().item()  # type: ignore[union-attr]
        for parameter in twin.parameters():
            parameter.grad *= min(1.0, 0.5 / (norm + 1e-6))
        reference.param_groups[0]["lr"] = 12e-3 * factor
        reference.step()
        reference.zero_grad()
        values = optimisation.apply(step)
        assert values == pytest.approx({"grad_norm": norm, "lr": 12e-3 * factor, "skipped": 0}, rel=1e-4)
        for found, expected in zip(layer.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("auxiliary", [False, True])
def test_a_gradient_that_is_not_finite_changes_nothing(config: Any, auxiliary: bool) -> None:
    layer = nn.Linear(3, 2)
    arguments = {"accelerator": Accelerator(), "config": config, "total_steps": 6, "auxiliary": auxiliary}
    optimisation = Optimisation(module=layer, rate=1e-3, **arguments)
    before = copy.deepcopy(layer.state_dict())
    (layer(torch.ones(3)).sum() * float("inf")).backward()
    assert optimisation.apply(3)["skipped"] == 1
    for name, value in layer.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(parameter.grad is None for parameter in layer.parameters())
    assert (optimisation.ema is None) == auxiliary
    assert optimisation.ema is None or optimisation.ema.updates == 0


@pytest.mark.parametrize("command", ["stage1", "stage2"])
def test_micro_batches_add_up_to_their_batch(
    stage1: Callable[..., Any], stage2: Callable[..., Any], tmp_path: Path, command: str
) -> None:
    make, run = {"stage1": (stage1, run_stage1), "stage2": (stage2, run_stage2)}[command]
    lines = []
    for parts in (1, 2):
        output = tmp_path / str(parts)
        sizes = {"train_batch_size": 4 // parts, "gradient_accumulation_steps": parts}
        run(make(output_dir=output, max_train_steps=1, **sizes))
        lines.append(json.loads((output / "metrics.jsonl").read_text().splitlines()[0]))
    for name in {"loss", "grad_norm", "discr_loss", "discr_grad_norm"} & lines[0].keys():
        # Spectral norm moves its vectors with every micro-batch.
        assert lines[1][name] == pytest.approx(lines[0][name], rel=0.1 if command == "stage1" else 1e-4), name
