"""The search for the smallest plan inside an accuracy limit, or inside limits of other units."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from edgelr.core.plan import Candidate, Plan
from edgelr.core.sites import SiteGroup
from edgelr.planning.allocate import Search
from edgelr.planning.search import (
    AIM,
    MORE_ROUNDS,
    ROUNDS,
    Found,
    Limit,
    largest_plan,
    plan_within,
    smallest_plan,
    smallest_within,
)
from tests.planning.test_allocate import make_search


@pytest.fixture(scope="module")
def search() -> Search:
    return make_search(multiple=1)


@pytest.fixture(scope="module")
def limit(search: Search) -> float:
    """What about half of the bytes cost."""
    return search.plan((search.smallest_bytes + search.dense_bytes) // 2).predicted_loss


def counted(factor: Callable[[Plan], float]) -> tuple[Callable[[Plan], float], list[Plan]]:
    """Measure ``factor`` times the predicted loss, and note what was measured."""
    measured: list[Plan] = []

    def measure(plan: Plan) -> float:
        measured.append(plan)
        return factor(plan) * plan.predicted_loss

    return measure, measured


@pytest.mark.parametrize("factor", [0.1, 0.5, 1.0, 2.0, 3.0, 10.0])
def test_a_steady_factor_is_found(search: Search, limit: float, factor: float) -> None:
    measure, plans = counted(lambda _: factor)
    found = smallest_plan(search, limit, measure, search.dense_bytes)
    assert found is not None
    assert found.measured_loss == measure(found.plan) <= limit
    assert found.factor == pytest.approx(factor)
    assert len(plans) <= ROUNDS + 1


@pytest.mark.parametrize("factor", [0.5, 2.0, 3.0])
def test_the_plan_uses_the_limit_up(search: Search, limit: float, factor: float) -> None:
    """A budget one step lower would predict more than what was aimed at."""
    found = smallest_plan(search, limit, counted(lambda _: factor)[0], search.dense_bytes)
    assert found is not None
    assert found.measured_loss >= 0.8 * limit
    aim = AIM * limit / factor
    step = 0.02 * search.dense_bytes  # more than one rank of one site
    assert search.plan(int(found.plan.planned_bytes - step)).predicted_loss > aim


def test_a_factor_that_grows_with_the_loss_still_stays_inside(search: Search, limit: float) -> None:
    measure, _ = counted(lambda plan: 1 + 3 * plan.predicted_loss / limit)
    found = smallest_plan(search, limit, measure, search.dense_bytes)
    assert found is not None
    assert found.measured_loss <= limit


def test_the_devices_budget_is_never_exceeded(search: Search, limit: float) -> None:
    largest = (2 * search.smallest_bytes + search.dense_bytes) // 3
    measure, plans = counted(lambda _: 0.1)
    found = smallest_plan(search, limit, measure, largest)
    assert found is not None
    assert all(plan.planned_bytes <= largest for plan in plans)


def test_nothing_is_found_where_every_plan_that_fits_loses_too_much(
    search: Search, limit: float
) -> None:
    measure, plans = counted(lambda _: 1e6)
    largest = (2 * search.smallest_bytes + search.dense_bytes) // 3
    assert smallest_plan(search, limit, measure, largest) is None
    assert 1 <= len(plans) <= ROUNDS + MORE_ROUNDS


@pytest.mark.parametrize("power", [0.3, 0.5, 0.7])
def test_a_factor_that_grows_as_the_loss_falls_is_followed(
    search: Search, limit: float, power: float
) -> None:
    """A third of what is measured at half of the bytes is allowed."""
    plans: list[Plan] = []

    def measure(plan: Plan) -> float:
        plans.append(plan)
        return float(limit * (plan.predicted_loss / limit) ** power)

    found = smallest_plan(search, limit / 3, measure, search.dense_bytes)
    assert found is not None
    assert 0.6 * limit / 3 <= found.measured_loss <= limit / 3
    assert found.plan.planned_bytes < search.dense_bytes
    assert len(plans) <= ROUNDS + MORE_ROUNDS


@pytest.mark.parametrize("power", [0.25, 0.3, 0.4])
def test_a_power_that_was_fitted_leads_to_the_aim_at_once(
    search: Search, limit: float, power: float
) -> None:
    """Steady factors come nearer by ever smaller steps; the fourth measurement is on the spot."""
    aim, measured = AIM * limit, []
    wanted = aim / 2 / math.exp(2)  # the first plan is predicted to lose half of the aim

    def measure(plan: Plan) -> float:
        measured.append(aim * (plan.predicted_loss / wanted) ** power)
        return measured[-1]

    found = smallest_plan(search, limit, measure, search.dense_bytes)
    assert found is not None
    assert [each > limit for each in measured] == [True] * ROUNDS + [False]
    assert found.measured_loss == measured[-1] == pytest.approx(aim, rel=0.02)
    assert found.factor == pytest.approx(found.measured_loss / found.plan.predicted_loss)


def test_the_dense_plan_is_the_answer_where_any_loss_is_too_much(
    search: Search, limit: float
) -> None:
    found = smallest_plan(search, limit, counted(lambda _: 1e9)[0], search.dense_bytes)
    assert found is None or found.plan.predicted_loss == 0


def test_a_loss_that_falls_is_no_obstacle(search: Search, limit: float) -> None:
    """Truncation sometimes improves a model on the held-out text."""
    found = smallest_plan(search, limit, lambda _: -0.01, search.dense_bytes)
    assert isinstance(found, Found)
    assert found.plan.planned_bytes == search.smallest_bytes


# --- limits in other units -----------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_the_smallest_plan_within_a_predicted_loss_is_the_smallest(
    search: Search, limit: float, share: float
) -> None:
    found = smallest_within(search, share * limit)
    assert found.predicted_loss <= share * limit
    below = search.plan(int(found.planned_bytes - 0.001 * search.dense_bytes))
    assert below.predicted_loss > share * limit


def test_what_fits_best_is_taken_where_no_plan_is_that_good(search: Search) -> None:
    most = (search.smallest_bytes + search.dense_bytes) // 2
    assert smallest_within(search, 0.0, most) == search.plan(most)
    assert smallest_within(search, 0.0).predicted_loss == 0


def test_the_largest_plan_fills_the_memory(search: Search) -> None:
    dense, small = search.plan(search.dense_bytes), search.plan(search.smallest_bytes)
    assert largest_plan(search, dense.resident_bytes).sites == dense.sites
    assert largest_plan(search, small.resident_bytes).sites == small.sites
    room = (dense.resident_bytes + small.resident_bytes) // 2
    found = largest_plan(search, room)
    assert room - 0.02 * dense.resident_bytes < found.resident_bytes <= room


def nodes(group: SiteGroup, candidate: Candidate) -> int:
    """A price that has nothing to do with bytes."""
    return 100 if candidate.form == "dense" else 160


def test_a_plan_keeps_two_limits_and_loses_little(search: Search, limit: float) -> None:
    half = (search.smallest_bytes + search.dense_bytes) // 2
    by_bytes = Limit(lambda _, each: each.bytes, half)
    free = plan_within(search, by_bytes, Limit(nodes, 10**6))
    assert free is not None
    split = sum(site.changed for site in free.sites)
    assert split == 3
    tight = plan_within(search, by_bytes, Limit(nodes, 400 + 60 * (split - 1)))
    assert tight is not None
    assert sum(site.changed for site in tight.sites) == split - 1
    assert tight.planned_bytes <= half
    assert tight.predicted_loss > free.predicted_loss
    assert plan_within(search, by_bytes, Limit(nodes, 399)) is None
