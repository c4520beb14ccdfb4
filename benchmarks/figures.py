"""One measured number beside its limit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """A measurement that must not exceed its limit."""

    name: str
    measured: float
    limit: float
    unit: str

    @property
    def ok(self) -> bool:
        return self.measured <= self.limit

    def __str__(self) -> str:
        verdict = "ok" if self.ok else "OVER"
        return f"{self.name:<44}{self.measured:>9.2f}{self.limit:>9.2f} {self.unit:<4}{verdict}"


def table(figures: Iterable[Figure]) -> str:
    head = f"{'':<44}{'measured':>9}{'limit':>9}"
    return "\n".join([head, *(str(figure) for figure in figures)])
