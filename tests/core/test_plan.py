"""Plans and budgets as values: sums over sites, and what is left for weights."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from edgelr.core.plan import Budget, Candidate, Plan, SitePlan
from edgelr.core.vocabulary import Form, WeightPrecision

DENSE = Candidate("dense", 24, "float32", 4 * 24 * 40, 2 * 24 * 40, 0.0)
BUDGET = Budget(1000, 100, 50, 25, 12, 6, context_tokens=7)


def site(name: str, candidate: Candidate, resident_bytes: int = 0) -> SitePlan:
    return SitePlan(name, 24, 40, candidate, 4 * 24 * 40, "", resident_bytes=resident_bytes)


@pytest.mark.parametrize(
    ("form", "precision", "changed"),
    [
        ("dense", "float32", False),
        ("dense", "float16", False),
        ("dense", "int8", True),
        ("low_rank", "float32", True),
    ],
)
def test_a_site_is_changed_by_another_form_or_by_rounding(
    form: Form, precision: WeightPrecision, changed: bool
) -> None:
    candidate = replace(DENSE, form=form, precision=precision)
    assert site("a", candidate).changed is changed


def test_a_plan_keeps_its_share_of_the_dense_bytes() -> None:
    small = replace(DENSE, form="low_rank", rank=6, bytes=DENSE.bytes // 4)
    plan = Plan((site("a", DENSE, 7), site("b", small, 5)), "r", "a", 0, 5 * small.bytes, 0.0)
    assert plan.dense_bytes == 2 * DENSE.bytes
    assert plan.resident_bytes == 12
    assert plan.kept == 5 / 8


def test_what_is_taken_from_a_device_is_missing_for_weights() -> None:
    taken = [each.name for each in fields(Budget) if each.name.endswith("_bytes")]
    taken = [name for name in taken if name not in ("device_bytes", "context_token_bytes")]
    assert BUDGET.weight_bytes == 1000 - 193
    for name in taken:
        more = replace(BUDGET, **{name: getattr(BUDGET, name) + 1})
        assert more.weight_bytes == BUDGET.weight_bytes - 1
    assert replace(BUDGET, cache_bytes=2000).weight_bytes < 0
