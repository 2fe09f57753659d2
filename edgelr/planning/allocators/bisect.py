"""Shared by allocators that have one knob: find its best setting inside the budget."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from edgelr.core.plan import Candidate, Choice
from edgelr.planning.candidates import Options

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

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


def one_threshold(
    options: list[Options],
    budget_bytes: int,
    score: Callable[[Options], NDArray[np.float64]],
    reason: Callable[[Candidate, float], str],
) -> dict[str, Choice]:
    """Keep the components whose score is above one threshold, the lowest that fits the budget.

    Args:
        options: candidates of every group.
        budget_bytes: bytes for all of them.
        score: function that scores the components of a group, in [0, 1].
        reason: function that says why a group becomes a candidate at a threshold.
    """
    if spent(option.dense for option in options) <= budget_bytes:
        return {
            option.name: Choice(option.dense, "the budget holds it dense") for option in options
        }
    scores = [score(option) for option in options]

    def choose(knob: float) -> list[Candidate]:
        pairs = zip(options, scores, strict=True)
        return [_above(option, int((each > 1 - knob).sum())) for option, each in pairs]

    knob = loosest(choose, budget_bytes)
    return {
        option.name: Choice(chosen, reason(chosen, 1 - knob))
        for option, chosen in zip(options, choose(knob), strict=True)
    }


def _above(option: Options, rank: int) -> Candidate:
    """Smallest candidate that holds ``rank`` components: rounded up, dense past break-even.

    At threshold 1 that is the smallest of all, however many scores tie with the largest.
    """
    enough = [c for c in option.compressed if c.rank >= rank]
    return min(enough, key=lambda c: c.bytes, default=option.dense)


def spent(candidates: Iterable[Candidate]) -> int:
    """Bytes of all candidates together."""
    return sum(candidate.bytes for candidate in candidates)
