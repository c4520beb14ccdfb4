"""Learning-rate curves and the optimiser's state on disk."""

from __future__ import annotations

import pytest

from training.optimisation import learning_rate_curve


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
