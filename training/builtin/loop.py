"""Training for a set time: how long and how fast."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator


def timed_steps(minutes: float) -> Iterator[tuple[int, float]]:
    """Counts steps from 0 until the time is over; beside each the share of the time that has passed."""
    start, step = time.monotonic(), 0
    while (progress := (time.monotonic() - start) / (60 * minutes)) < 1:
        yield step, progress
        step += 1


def learning_rate(progress: float, step: int, peak: float, *, warmup: int = 50) -> float:
    """Warm-up over some steps, then a cosine to zero over the set time."""
    return peak * min((step + 1) / warmup, 1) * 0.5 * (1 + math.cos(math.pi * progress))
