"""Drawings: every figure of a report is drawn once, as long as it is, and named in words."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import pytest

from edgelr.core.report import Report
from edgelr.report.drawings import budget_chart, byte_chart, drawings, latency_chart, role_chart
from edgelr.report.svg import to_file
from tests.helpers.reports import MIB, make_report, site, unmeasured

ATTACK = "</script><script>alert('x')</script><img src=//evil.example onerror=alert(1)>\x00&\ud800"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def report() -> Report:
    return make_report()


def test_a_plan_that_does_not_fit_shows_what_is_missing(report: Report) -> None:
    sites = (site("model.layers.0.mlp.up_proj", "dense", 9000 * MIB, "dense is smaller"),)
    crowded = dataclasses.replace(report, plan=dataclasses.replace(report.plan, sites=sites))
    chart = drawings(crowded)["budget"]
    assert "missing: 2,816.0 MiB" in chart.description
    assert "over" in to_file(chart, "budget")


def test_a_map_has_a_field_for_every_linear(report: Report) -> None:
    plan = dataclasses.replace(
        report.plan,
        sites=(
            *report.plan.sites,
            site("lm_head", "dense", 3 * MIB, "kept dense"),
            site("MatMul_7", "low_rank", 3 * MIB, "counted"),
            site("blocks.2.0.mlp", "low_rank", 3 * MIB, "counted"),
        ),
    )
    chart = drawings(dataclasses.replace(report, plan=plan))["ranks"]
    assert chart.columns == ("self_attn.q_proj", "mlp.up_proj", "lm_head", "MatMul", "mlp")
    assert [label for label, _ in chart.rows] == ["0", "1", "–", "7", "2.0"]
    told = [cell.description for _, cells in chart.rows for cell in cells if cell.value is not None]
    assert sorted(each.partition(":")[0] for each in told) == sorted(
        each.name for each in plan.sites
    )


def test_there_is_a_drawing_where_there_are_figures(report: Report) -> None:
    whole = set(drawings(report))
    assert {"size", "roles", "loss", "latency", "memory", "budget", "ranks"} < whole
    less = dataclasses.replace(unmeasured(report), loss=None, spectra={})
    assert set(drawings(less)) == {"size", "roles", "budget", "ranks"}


def test_bytes_are_drawn_where_ranks_do_not_tell_them(report: Report) -> None:
    first, *others = report.plan.sites
    candidate = dataclasses.replace(first.candidate, precision="int4", bytes=5 * MIB)
    sites = (dataclasses.replace(first, candidate=candidate), *others)
    plan = dataclasses.replace(report.plan, sites=sites)
    chart = byte_chart(plan)
    assert "bytes" in drawings(dataclasses.replace(report, plan=plan))
    assert "bytes" not in drawings(report)
    values = [cell.value for _, cells in chart.rows for cell in cells if cell.value is not None]
    assert values == [5 / 20, 1.0, 12 / 20]  # layer by layer


def test_a_budget_is_a_whole_and_its_parts(report: Report) -> None:
    chart = budget_chart(report)
    whole, *parts = chart.steps
    assert (whole.start, whole.end) == (0, chart.total)
    assert parts[0].start == 0
    assert all(one.end == other.start for one, other in pairwise(parts))
    assert parts[-1].end == chart.total
    assert (parts[-1].label, parts[-1].kind) == ("headroom", "free")


def test_latency_has_what_was_measured_and_what_was_predicted(report: Report) -> None:
    groups = latency_chart(report).groups
    assert [(group.title, [bar.predicted for bar in group.bars]) for group in groups] == [
        ("prefill 128", [False, False]),
        ("decode 512", [False, False]),
        ("prefill 128", [True, True]),
        ("decode 512", [True, True]),
    ]
    assert [bar.value for bar in groups[0].bars] == [98.5, 67.5]
    assert [bar.high for bar in groups[0].bars] == [101.5, 101.5]
    assert "not on Jetson" in groups[0].note


def test_roles_add_up_to_the_plan(report: Report) -> None:
    groups = role_chart(report.plan).groups
    for place, whole in ((0, report.plan.dense_bytes), (1, report.plan.planned_bytes)):
        assert sum(group.bars[place].value for group in groups) == whole
