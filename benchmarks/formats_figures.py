"""One acceptance figure of a file format: what was measured, and the limit on either side."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple


class Figure(NamedTuple):
    """name: figure number and what it is. limit: as text, with its direction."""

    name: str
    measured: str
    limit: str
    ok: bool

    def __str__(self) -> str:
        return f"{self.name:<58}{self.measured:>14}{self.limit:>16}  {'ok' if self.ok else 'FAIL'}"


def at_least(name: str, value: float, limit: float, unit: str = "dB") -> Figure:
    return Figure(name, f"{value:.4g} {unit}", f">= {limit:g} {unit}", value >= limit)


def at_most(name: str, value: float, limit: float, unit: str = "") -> Figure:
    return Figure(name, f"{value:.4g} {unit}", f"<= {limit:g} {unit}", value <= limit)


def exact(name: str, value: object, expected: object) -> Figure:
    return Figure(name, str(value), f"= {expected}", value == expected)


def best_seconds(function: Callable[[], object], repeats: int = 4) -> float:
    """The shortest of several runs, since other work on the machine only ever adds."""
    return min(_seconds(function) for _ in range(repeats))


def _seconds(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started
