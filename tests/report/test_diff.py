"""Diffs: both bundles side by side, and a warning where they cannot be compared."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from edgelr.core.report import Report
from edgelr.report.diff import FOLDER, Side, make_diff
from edgelr.report.schema import to_json
from tests.helpers.reports import MIB, make_report, unmeasured

LOCK = {"settings.keep": "0.7", FOLDER: "here", "seed": "0", "packages.torch": "2.13"}


def side(report: Report, **lock: str) -> Side:
    return Side("folder", report, {**LOCK, **lock})


@pytest.fixture
def before() -> Report:
    return make_report()


@pytest.fixture
def after(before: Report) -> Report:
    """One linear smaller, one new, one gone."""
    first, second, third = before.plan.sites
    smaller = replace(first, candidate=replace(first.candidate, rank=3, bytes=6 * MIB))
    plan = replace(before.plan, sites=(smaller, second, replace(third, name="new")))
    return replace(before, plan=plan)


def test_linears_that_changed_are_listed_the_largest_change_first(
    before: Report, after: Report
) -> None:
    found = make_diff(side(before), side(after))
    assert [(each.name, each.bytes) for each in found.sites] == [
        ("model.layers.0.mlp.up_proj", -20 * MIB),
        ("new", 20 * MIB),
        ("model.layers.0.self_attn.q_proj", -5 * MIB),
    ]
    gone, new, _ = found.sites
    assert (gone.after, new.before) == (None, None)
    assert found.unchanged_sites == 1


def test_a_diff_read_backwards_has_the_opposite_signs(before: Report, after: Report) -> None:
    there, back = make_diff(side(before), side(after)), make_diff(side(after), side(before))
    assert {each.name: each.bytes for each in there.sites} == {
        each.name: -each.bytes for each in back.sites
    }
    figures = {each.name: (each.before, each.after) for each in there.figures}
    assert figures == {each.name: (each.after, each.before) for each in back.figures}


def test_another_reason_is_no_change(before: Report) -> None:
    sites = tuple(replace(each, reason="another") for each in before.plan.sites)
    same = replace(before, plan=replace(before.plan, sites=sites))
    found = make_diff(side(before), side(same))
    assert (found.sites, found.unchanged_sites, found.settings, found.notes) == ((), 3, (), ())


def test_what_one_side_lacks_is_none_and_not_zero(before: Report) -> None:
    found = {each.name: each for each in make_diff(side(before), side(unmeasured(before))).figures}
    for name in ("perplexity", "prefill 128", "peak memory", "resident memory on the device"):
        assert found[name].before is not None
        assert found[name].after is None
    assert {each.origin for each in found.values()} == {"counted", "measured", "predicted"}


def test_settings_are_those_that_decide_and_not_where_to(before: Report) -> None:
    other = side(before, **{"settings.keep": "0.4", FOLDER: "there", "packages.torch": "2.14"})
    found = make_diff(side(before), other).settings
    assert [(each.name, each.before, each.after) for each in found] == [
        ("settings.keep", "0.7", "0.4")
    ]


def test_a_reader_is_warned_of_everything_that_is_not_comparable(before: Report) -> None:
    assert before.validation is not None
    other = replace(
        before, digest="sha256:xyz", profile="pi", environment={"cpu": "another"},
        validation=replace(before.validation, text="another text"),
    )  # fmt: skip
    found = make_diff(side(before), side(other))
    assert not found.same_model
    for note, said in zip(
        found.notes,
        ("different models", "different devices", "different texts", "different machines"),
        strict=True,
    ):
        assert said in note


def test_json_holds_numbers_that_json_has_no_word_for(before: Report) -> None:
    infinite = replace(before, plan=replace(before.plan, predicted_loss=float("inf")))
    text = to_json(make_diff(side(before), side(infinite)))
    found = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    (loss,) = [each for each in found["figures"] if each["name"] == "loss of the plan"]
    assert (loss["before"], loss["after"]) == (0.375, "Infinity")
