"""Minimize the total predicted loss inside a budget of bytes, over every candidate of every group.

For a multiplier, each group independently takes the candidate of least ``loss + multiplier *
bytes``: a vertex of the lower convex hull of its (bytes, loss) points (Everett, 1963; Shoham and
Gersho, 1988). As the multiplier falls, groups step along their hulls in the order of loss saved
per byte, all groups in one queue. So the whole path is sorted once, walked until the budget, and
exact at every vertex. Jumps to dense are steps like any other.

Where groups exclude each other (query, key and value alone, or with a basis in common), the points
are those of every way to cover their sites: a cover's own path is that of its groups side by side,
and the hull is taken over all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from edgelr.core.plan import Candidate, Choice
from edgelr.core.vocabulary import LAYOUTS
from edgelr.planning.allocators import ALLOCATORS
from edgelr.planning.allocators.cover import Cover, components
from edgelr.planning.candidates import Options


@dataclass(frozen=True, slots=True)
class _Point:
    """What the sites of one component may become together."""

    bytes: int
    loss: float
    chosen: tuple[tuple[Options, Candidate], ...]


@dataclass(frozen=True, slots=True)
class _Step:
    """One component's move to the next vertex of its hull."""

    saved_per_byte: float
    component: int
    target: _Point


@ALLOCATORS.register("lagrangian")
def lagrangian(options: list[Options], budget_bytes: int) -> dict[str, Choice]:
    """Walk down the hulls by loss saved per byte until the next step does not fit.

    The component of that step takes the best of its points that still fits. Stopping there, and
    not filling with later steps, makes the loss fall monotonically with the budget.
    """
    covers = components(options)
    hulls = [_hull(_points(each)) for each in covers]
    chosen = [hull[0] for hull in hulls]
    left = budget_bytes - sum(point.bytes for point in chosen)
    price = float("inf")
    for step in _steps(hulls):
        current = chosen[step.component]
        if step.target.bytes - current.bytes > left:
            chosen[step.component] = _best_between(covers[step.component], current, left)
            price = step.saved_per_byte
            break
        left -= step.target.bytes - current.bytes
        chosen[step.component] = step.target
    return {
        option.name: _explain(option, candidate, price)
        for point in chosen
        for option, candidate in point.chosen
    }


def _points(covers: list[Cover]) -> list[_Point]:
    """The paths of all covers; that of one group is simply its candidates."""
    return [point for cover in covers for point in _path(cover)]


def _path(cover: Cover) -> list[_Point]:
    """Hull vertices of several groups side by side: each step is the best of any group's."""
    first, *rest = cover
    if not rest:
        return _alone(first)
    hulls = [_hull(_alone(option)) for option in cover]
    current = [hull[0] for hull in hulls]
    path = [_joined(current)]
    for step in _steps(hulls):
        current[step.component] = step.target
        path.append(_joined(current))
    return path


def _alone(option: Options) -> list[_Point]:
    return [
        _Point(c.bytes, c.predicted_loss, ((option, c),))
        for c in (*option.compressed, option.dense)
    ]


def _joined(points: Iterable[_Point]) -> _Point:
    points = list(points)
    return _Point(
        sum(point.bytes for point in points),
        sum(point.loss for point in points),
        tuple(pair for point in points for pair in point.chosen),
    )


def _hull(points: list[_Point]) -> list[_Point]:
    """Lower convex hull of (bytes, loss), from the smallest point to the last useful one."""
    hull: list[_Point] = []
    for point in sorted(points, key=lambda p: (p.bytes, p.loss, -len(p.chosen))):
        if hull and point.loss >= hull[-1].loss:
            continue
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) <= _slope(hull[-2], point):
            hull.pop()
        hull.append(point)
    return hull


def _slope(small: _Point, large: _Point) -> float:
    """Loss saved per additional byte."""
    return (small.loss - large.loss) / (large.bytes - small.bytes)


def _steps(hulls: list[list[_Point]]) -> list[_Step]:
    """All steps of all components, best first; within one their order is that of the hull."""
    steps = [
        _Step(_slope(small, large), component, large)
        for component, hull in enumerate(hulls)
        for small, large in pairwise(hull)
    ]
    return sorted(steps, key=lambda step: (-step.saved_per_byte, step.component, step.target.bytes))


def _best_between(covers: list[Cover], current: _Point, left: int) -> _Point:
    """Point of least loss within ``left`` further bytes; the current one at worst."""
    fitting = [
        point
        for point in _points(covers)
        if point.bytes - current.bytes <= left and point.loss < current.loss
    ]
    return min(fitting, key=lambda point: (point.loss, point.bytes), default=current)


def _explain(option: Options, chosen: Candidate, price: float) -> Choice:
    if chosen is not option.dense:
        shared = f" for {len(option.sites)} linears" if len(option.sites) > 1 else ""
        rank = "" if chosen.form == "dense" else f" rank {chosen.rank}"
        stored = f" in {chosen.precision}" if chosen.precision in LAYOUTS else ""
        return Choice(chosen, f"{chosen.form}{rank}{stored}{shared} costs its loss least")
    if not option.compressed:
        return Choice(chosen, "no smaller candidate")
    if price == float("inf"):
        return Choice(chosen, "the budget holds it dense")
    return Choice(chosen, "every smaller candidate loses more per byte than other sites do")
