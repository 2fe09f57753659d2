"""Shared by allocators that have one knob: find its best setting inside the budget."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from edgelr.types import Candidate

STEPS = 60  # halvings: past the resolution of a float64 in [0, 1]


def loosest(choose: Callable[[float], list[Candidate]], budget_bytes: int) -> float:
    """Find the largest knob in [0, 1] whose choice fits; bytes must not fall as the knob rises."""
    if spent(choose(1.0)) <= budget_bytes:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if spent(choose(middle)) <= budget_bytes else (low, middle)
    return low


def spent(candidates: Iterable[Candidate]) -> int:
    """Bytes of all candidates together."""
    return sum(candidate.bytes for candidate in candidates)
