"""Learning-rate curves and the optimiser's state on disk."""

from __future__ import annotations

import pytest

from training.optimisation import _flat, _grouped, learning_rate_curve


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
