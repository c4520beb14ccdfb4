"""What a benchmark measured, each figure beside its limit."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple


class Figure(NamedTuple):
    """name: what it is, for file formats behind its number. limit: as text, with its direction."""

    name: str
    measured: str
    limit: str
    ok: bool

    def __str__(self) -> str:
        return f"{self.name:<58}{self.measured:>14}{self.limit:>16}  {'ok' if self.ok else 'FAIL'}"


def at_least(name: str, decibels: float, limit: float) -> Figure:
    return Figure(name, f"{decibels:.4g} dB", f">= {limit:g} dB", decibels >= limit)


def at_most(name: str, value: float, limit: float, unit: str = "") -> Figure:
    return Figure(name, f"{value:.4g} {unit}".rstrip(), f"<= {limit:g} {unit}".rstrip(), value <= limit)


def exact(name: str, value: object, expected: object) -> Figure:
    return Figure(name, str(value), f"= {expected}", value == expected)


def report(figures: Iterable[Figure]) -> None:
    """Prints each as soon as it is measured; exits with 1 if one does not hold."""
    print(f"{'':<58}{'measured':>14}{'limit':>16}")
    failed = 0
    for figure in figures:
        print(figure, flush=True)
        failed += not figure.ok
    if failed:
        sys.exit(1)


def best_seconds(function: Callable[[], object], repeats: int = 4) -> float:
    """The shortest of several runs, since other work on the machine only ever adds."""
    return min(_seconds(function) for _ in range(repeats))


def _seconds(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started
