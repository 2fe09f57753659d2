"""Find the smallest plan whose measured loss stays inside an accuracy limit.

The allocator predicts the loss of a plan; measured and predicted loss differ by a factor that
changes slowly over budgets. So a plan is made for the limit, measured once on held-out text, the
factor corrected, and the plan made again: two or three measurements, not one per site. Where none
of these stays inside, the factor grows as the loss falls: a power of the predicted loss is fitted
to two measurements, and followed a few times more.

Limits in other units than bytes of a file (memory, time) are met by bisection.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from edgelr.core.plan import Candidate, Choice, Plan
from edgelr.core.sites import SiteGroup
from edgelr.planning.allocate import BISECTIONS, Price, Search

FIRST_FACTOR = 2.0  # measured over predicted, where nothing is known yet: typical for decoders
AIM = 0.9  # share of the limit that is aimed at: held-out text and final text differ
ROUNDS = 3
MORE_ROUNDS = 4  # where nothing was inside the limit so far
LEAST_POWER, MOST_POWER = 0.2, 2.0  # of the predicted loss, that the measured one grows with
UNIT = 10**9  # of a price: the whole of its limit
PROPORTIONS = ((0.0,), (0.25, 1.0, 4.0, 16.0))  # of the second price to the first


@dataclass(frozen=True, slots=True)
class Limit:
    """The most that the prices of a plan may add up to; above 0."""

    price: Price
    most: int


@dataclass(frozen=True, slots=True)
class Found:
    """The plan, the loss that was measured for it, and measured over predicted loss."""

    plan: Plan
    measured_loss: float
    factor: float


def smallest_plan(
    search: Search, limit: float, measure: Callable[[Plan], float], largest_bytes: int
) -> Found | None:
    """Find the smallest plan with a measured loss of at most ``limit``.

    Args:
        search: maker of plans.
        limit: largest loss that ``measure`` may return, in units of the predicted loss.
        measure: function that measures a plan on held-out text.
        largest_bytes: the device's budget; plans do not exceed it.

    Returns:
        None when no measured plan stayed inside the limit: the dense model, or what fits, is all
        that the limit allows.
    """
    aim, best = AIM * limit, None
    tried: set[int] = set()
    points: list[tuple[float, float]] = []  # predicted and measured losses
    for done in range(ROUNDS + MORE_ROUNDS):
        if done == ROUNDS and best is not None:
            break
        plan = smallest_within(search, _predicted_for(aim, points), largest_bytes)
        if plan.planned_bytes in tried or (
            best is not None and plan.planned_bytes >= best.plan.planned_bytes
        ):
            break
        tried.add(plan.planned_bytes)
        measured = measure(plan)
        points.append((max(plan.predicted_loss, 1e-12), max(measured, 1e-12)))
        if measured <= limit:
            best = Found(plan, measured, points[-1][1] / points[-1][0])
        if AIM * AIM * limit <= measured <= limit:
            break
    return best


def _predicted_for(aim: float, points: list[tuple[float, float]]) -> float:
    """Tell which predicted loss ought to be measured as ``aim``, from what was measured so far."""
    if not points:
        return aim / FIRST_FACTOR
    if len(points) < ROUNDS:
        predicted, measured = points[-1]
        return predicted * aim / measured
    # A steady factor did not lead there.
    nearest = sorted(points, key=lambda point: abs(math.log(point[1] / aim)))
    (predicted, measured), (before, found) = nearest[:2]
    steps = math.log(predicted / before)
    slope = math.log(measured / found) / steps if steps else 1.0
    power = min(max(slope, LEAST_POWER), MOST_POWER)
    return predicted * math.pow(aim / measured, 1 / power)


def largest_plan(search: Search, resident_bytes: int) -> Plan:
    """Find the largest plan whose weights take at most ``resident_bytes`` in memory.

    Files and memory differ by the precision of the weights, so that one does not follow from the
    other; the smallest plan is taken to fit.
    """

    def fits(plan: Plan) -> bool:
        return plan.resident_bytes <= resident_bytes

    dense = search.plan(search.dense_bytes)
    if fits(dense):
        return dense
    smallest = search.plan(search.smallest_bytes)
    return _bisected(search, search.dense_bytes, smallest, fits, largest=True)


def smallest_within(
    search: Search, predicted_loss: float, largest_bytes: int | None = None
) -> Plan:
    """Find the smallest plan with at most that predicted loss; at worst the best that fits."""
    most = search.dense_bytes
    most = most if largest_bytes is None else min(largest_bytes, most)

    def exact(plan: Plan) -> bool:
        return plan.predicted_loss <= predicted_loss

    return _bisected(search, most, search.plan(most), exact, largest=False)


def plan_within(search: Search, first: Limit, second: Limit) -> Plan | None:
    """Find a plan that loses little while two sums of prices stay within their limits.

    What loses least within the first limit is taken where it stays within the second; else the two
    prices are added, each in units of its limit, in several proportions.

    Returns:
        None where no proportion gives a plan within both.
    """
    groups = {group.name: group for group in search.groups}

    def fits(choices: dict[str, Choice]) -> bool:
        return all(
            sum(limit.price(groups[name], each.candidate) for name, each in choices.items())
            <= limit.most
            for limit in (first, second)
        )

    for proportions in PROPORTIONS:
        found = [
            search.made(choices)
            for weight in proportions
            if (choices := _largest_mixed(search, first, second, weight, fits))
        ]
        if found:
            return min(found, key=lambda plan: plan.predicted_loss)
    return None


def _largest_mixed(
    search: Search,
    first: Limit,
    second: Limit,
    weight: float,
    fits: Callable[[dict[str, Choice]], bool],
) -> dict[str, Choice] | None:
    """Spend as much as fits of ``weight`` parts of the second price and one of the first."""

    def mixed(group: SiteGroup, candidate: Candidate) -> int:
        parts = first.price(group, candidate) / first.most
        if weight:
            parts += weight * second.price(group, candidate) / second.most
        return round(UNIT * parts)

    return search.priced(mixed).dearest(fits, int(UNIT * (1 + weight)))


def _bisected(
    search: Search, most: int, plan: Plan, accept: Callable[[Plan], bool], *, largest: bool
) -> Plan:
    """The largest or smallest accepted plan of at most ``most`` bytes; ``plan`` without any."""
    low, high = search.smallest_bytes, most
    for _ in range(BISECTIONS):
        if high - low <= 1:
            break
        middle = (low + high) // 2
        candidate = search.plan(middle)
        accepted = accept(candidate)
        plan = candidate if accepted else plan
        low, high = (middle, high) if accepted == largest else (low, middle)
    return plan
