"""Tables of a plan: every linear, by role, and why some stay dense."""

from __future__ import annotations

import dataclasses

import pytest

from edgelr.core.report import Report
from edgelr.report.plan_tables import (
    dense_sentences,
    kind_of,
    layer_of,
    role_of,
    role_table,
    site_table,
)
from tests.helpers.reports import MIB, make_report, site

ATTACK = "</script><script>alert('x')</script><img src=//evil.example onerror=alert(1)>\x00&\ud800"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def report() -> Report:
    return make_report()


def test_groups_are_named_where_there_are_any(report: Report) -> None:
    assert "with" not in site_table(report.plan).columns
    first, *others = report.plan.sites
    shared = dataclasses.replace(first, group="model.layers.0.input")
    found = site_table(dataclasses.replace(report.plan, sites=(shared, *others)))
    column = found.columns.index("with")
    assert [row[column] for row in found.rows] == ["model.layers.0.input", "–", "–"]
    assert all(len(row) == len(found.columns) for row in found.rows)


@pytest.mark.parametrize(
    ("name", "role", "layer"),
    [
        ("model.layers.11.self_attn.q_proj", "self_attn.q_proj", "11"),
        ("encoder.layers.0.blocks.1.mlp.fc1", "mlp.fc1", "0.1"),
        ("lm_head", "lm_head", ""),
        ("MatMul_7", "MatMul", "7"),
        ("/model/layers.3/mlp/MatMul", "mlp/MatMul", "3"),
    ],
)
def test_roles_and_layers_are_read_from_names(name: str, role: str, layer: str) -> None:
    found = site(name, "dense", MIB, "")
    assert (role_of(found), layer_of(found)) == (role, layer)


def test_roles_are_counted_by_form_and_add_up(report: Report) -> None:
    table = role_table(report.plan)
    assert table.columns == ("role", "sites", "dense", "low_rank", "pivoted", "kept")
    *roles, whole = [list(map(int, row[1:5])) for row in table.rows]
    assert [sum(column) for column in zip(*roles, strict=True)] == whole == [3, 1, 1, 1]


def test_whole_numbers_are_a_kind_of_their_own(report: Report) -> None:
    first = report.plan.sites[0]
    rounded = dataclasses.replace(first.candidate, precision="int8")
    assert kind_of(first) == "low_rank"
    assert kind_of(dataclasses.replace(first, candidate=rounded)) == "low_rank int8"


def test_the_most_frequent_reason_comes_first(report: Report) -> None:
    reasons = [site("a", "dense", 1, "small"), *(site(x, "dense", 1, "steep") for x in "bc")]
    plan = dataclasses.replace(report.plan, sites=(*reasons, site("d", "low_rank", 1, "cheap")))
    assert dense_sentences(plan) == ["2 dense: steep", "1 dense: small"]


def test_a_tied_site_has_no_bytes_of_its_own(report: Report) -> None:
    without = dataclasses.replace(report.plan.sites[0], dense_bytes=0)
    table = site_table(dataclasses.replace(report.plan, sites=(without,)))
    assert table.rows[0][table.columns.index("kept")] == "–"
