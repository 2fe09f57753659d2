"""Minimize the total predicted loss inside a budget of bytes, over every candidate of every group.

For a multiplier, each group independently takes the candidate of least ``loss + multiplier *
bytes``: a vertex of the lower convex hull of its (bytes, loss) points (Everett, 1963; Shoham and
Gersho, 1988). As the multiplier falls, groups step along their hulls in the order of loss saved
per byte, all groups in one queue. So the whole path is sorted once, walked until the budget, and
exact at every vertex. Jumps to dense are steps like any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from edgelr.allocators import ALLOCATORS
from edgelr.candidates import Options
from edgelr.types import Candidate, Choice


@dataclass(frozen=True, slots=True)
class _Step:
    """One group's move to the next vertex of its hull."""

    saved_per_byte: float
    group: int
    target: Candidate


@ALLOCATORS.register("lagrangian")
def lagrangian(options: list[Options], budget_bytes: int) -> dict[str, Choice]:
    """Walk down the hulls by loss saved per byte until the next step does not fit.

    The group of that step takes the best of its candidates that still fits. Stopping there, and
    not filling with later steps, makes the loss fall monotonically with the budget.
    """
    hulls = [_hull(option) for option in options]
    chosen = [hull[0] for hull in hulls]
    left = budget_bytes - sum(candidate.bytes for candidate in chosen)
    price = float("inf")
    for step in _steps(hulls):
        current = chosen[step.group]
        if step.target.bytes - current.bytes > left:
            chosen[step.group] = _best_between(options[step.group], current, left)
            price = step.saved_per_byte
            break
        left -= step.target.bytes - current.bytes
        chosen[step.group] = step.target
    return {
        option.name: _explain(option, candidate, price)
        for option, candidate in zip(options, chosen, strict=True)
    }


def _hull(option: Options) -> list[Candidate]:
    """Lower convex hull of (bytes, loss), from the smallest candidate to the last useful one."""
    hull: list[Candidate] = []
    for point in sorted(
        (*option.compressed, option.dense), key=lambda c: (c.bytes, c.predicted_loss)
    ):
        if hull and point.predicted_loss >= hull[-1].predicted_loss:
            continue
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) <= _slope(hull[-2], point):
            hull.pop()
        hull.append(point)
    return hull


def _slope(small: Candidate, large: Candidate) -> float:
    """Loss saved per additional byte."""
    return (small.predicted_loss - large.predicted_loss) / (large.bytes - small.bytes)


def _steps(hulls: list[list[Candidate]]) -> list[_Step]:
    """All steps of all groups, best first; within a group their order is that of the hull."""
    steps = [
        _Step(_slope(small, large), group, large)
        for group, hull in enumerate(hulls)
        for small, large in pairwise(hull)
    ]
    return sorted(steps, key=lambda step: (-step.saved_per_byte, step.group, step.target.bytes))


def _best_between(option: Options, current: Candidate, left: int) -> Candidate:
    """Candidate of least loss within ``left`` further bytes; the current one at worst."""
    fitting = [
        c
        for c in (*option.compressed, option.dense)
        if c.bytes - current.bytes <= left and c.predicted_loss < current.predicted_loss
    ]
    return min(fitting, key=lambda c: (c.predicted_loss, c.bytes), default=current)


def _explain(option: Options, chosen: Candidate, price: float) -> Choice:
    if chosen is not option.dense:
        return Choice(chosen, f"{chosen.form} rank {chosen.rank} costs its loss least")
    if not option.compressed:
        return Choice(chosen, "no smaller candidate")
    if price == float("inf"):
        return Choice(chosen, "the budget holds it dense")
    return Choice(chosen, "every smaller candidate loses more per byte than other sites do")
