"""Plans: what every recipe makes of a budget."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgelr.compress.spectra import SpectrumTable
from edgelr.core.errors import BudgetError
from edgelr.core.plan import Candidate, Plan
from edgelr.core.sites import LinearSite, SiteGroup
from edgelr.planning.allocate import Search, prepare
from edgelr.planning.recipes import RECIPES

SHAPES = {"first": (96, 120), "second": (104, 80), "third": (88, 136), "tiny": (5, 6)}
MULTIPLE = 8

every_recipe = pytest.mark.parametrize("recipe", RECIPES.names())


def spectra() -> dict[str, np.ndarray]:
    """One seeded spectrum for every shape, with losses at every rank."""
    random = np.random.default_rng(0)
    loss = {}
    for name, shape in SHAPES.items():
        sigma = np.sort(random.exponential(size=min(shape)))[::-1]
        loss[name] = np.append(np.cumsum(sigma[::-1] ** 2)[::-1] / 2, 0.0)
    return loss


def make_search(recipe: str = "edgelr", multiple: int = MULTIPLE) -> Search:
    groups = [
        SiteGroup(name, (LinearSite(name, *shape, False, name, None, name),))
        for name, shape in SHAPES.items()
    ]
    table = SpectrumTable(Path("nowhere"), spectra())
    return prepare(groups, table, RECIPES.get(recipe), "float16", multiple)


def half(search: Search) -> Plan:
    return search.plan((search.smallest_bytes + search.dense_bytes) // 2)


@every_recipe
def test_a_plan_adds_up(recipe: str) -> None:
    search = make_search(recipe)
    plan = half(search)
    assert plan.planned_bytes == sum(site.candidate.bytes for site in plan.sites)
    assert plan.predicted_loss == sum(site.candidate.predicted_loss for site in plan.sites)
    assert plan.dense_bytes == search.dense_bytes == 2 * sum(a * b for a, b in SHAPES.values())
    assert plan.planned_bytes <= plan.budget_bytes
    assert plan.kept == plan.planned_bytes / plan.dense_bytes
    assert (plan.recipe, plan.allocator) == (recipe, RECIPES.get(recipe).allocator)


@every_recipe
def test_a_plan_keeps_to_its_recipe(recipe: str) -> None:
    search = make_search(recipe)
    for site in half(search).sites:
        candidate = site.candidate
        assert candidate.form == "dense" or candidate.form in RECIPES.get(recipe).forms
        assert candidate.precision == "float16"
        assert candidate.form in ("dense", "kronecker") or candidate.rank % MULTIPLE == 0
        assert candidate.form == "dense" or candidate.bytes < site.dense_bytes
        assert site.reason


@every_recipe
@pytest.mark.parametrize("multiple", [8, 24])
def test_an_impossible_budget_names_a_share_that_is_feasible(recipe: str, multiple: int) -> None:
    search = make_search(recipe, multiple)
    for budget in (0, search.smallest_bytes // 2, search.smallest_bytes - 1):
        with pytest.raises(BudgetError) as caught:
            search.plan(budget)
        found = re.search(r"--keep (\d\.\d+)", str(caught.value))
        assert found
        keep = float(found[1])
        assert search.plan(int(keep * search.dense_bytes)).sites
        assert keep * search.dense_bytes < 1.1 * search.smallest_bytes
        assert f"{search.smallest_bytes:,}" in str(caught.value)


def further_products(group: SiteGroup, candidate: Candidate) -> int:
    """Bytes, and 3,000 more where one product becomes two."""
    return candidate.bytes + 3000 * (candidate.form != "dense")


def test_a_price_is_weighed_and_the_bytes_stay_inside() -> None:
    plain, priced = make_search(), replace(make_search(), price=further_products)
    budget = (3 * plain.smallest_bytes + 7 * plain.dense_bytes) // 10
    by_bytes, by_price = plain.plan(budget), priced.plan(budget)
    changed_sites = [sum(site.changed for site in plan.sites) for plan in (by_bytes, by_price)]
    assert by_price.planned_bytes <= budget
    assert changed_sites[1] < changed_sites[0]
    assert by_price.predicted_loss > by_bytes.predicted_loss


def test_a_price_that_counts_nothing_but_bytes_changes_nothing() -> None:
    plain = make_search()
    priced = replace(plain, price=lambda _, candidate: candidate.bytes)
    assert half(priced) == half(plain)


def test_where_no_price_leads_to_few_bytes_the_bytes_decide() -> None:
    plain = make_search()
    priced = replace(plain, price=lambda _, candidate: 10**6 - candidate.bytes)
    assert priced.plan(plain.smallest_bytes) == plain.plan(plain.smallest_bytes)


@every_recipe
def test_the_smallest_plan_is_feasible(recipe: str) -> None:
    search = make_search(recipe)
    assert search.plan(search.smallest_bytes).planned_bytes == search.smallest_bytes


def test_where_nothing_is_smaller_the_only_share_is_one() -> None:
    search = make_search(multiple=1000)
    with pytest.raises(BudgetError, match=r"--keep 1\.000"):
        search.plan(search.dense_bytes - 1)
    assert {site.candidate.form for site in search.plan(search.dense_bytes).sites} == {"dense"}
