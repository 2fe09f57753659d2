"""Recipes beside each other: which is best, and what survives its file."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from pydantic import TypeAdapter

from edgelr.core.tasks import MetricName
from edgelr.report.comparison import EVALUATION, MethodBench
from edgelr.report.schema import to_json
from tests.helpers.comparisons import make_bench


@pytest.mark.parametrize(("metric", "best"), [("perplexity", 22.0), ("mean_cosine", 0.9)])
def test_the_best_is_the_least_perplexity_and_the_largest_cosine(
    metric: MetricName, best: float
) -> None:
    found = make_bench(metric)
    assert found.best(0.5, "ours") == best
    winner = found.winner(0.5)
    assert winner is not None
    assert winner.recipe == "second"


def test_what_is_no_number_never_wins() -> None:
    found = make_bench()
    assert found.best(0.5, "theirs") == 22.0
    undefined = [replace(row, figures=None) if row.keep else row for row in found.rows]
    nothing = replace(found, rows=tuple(undefined))
    assert nothing.best(0.5, "ours") is None
    assert nothing.winner(0.5) is None


def test_shares_are_listed_once_in_the_order_of_the_question() -> None:
    found = make_bench()
    assert found.keeps == [0.5, 0.9]
    assert [row.recipe for row in found.at(0.9)] == ["first", "second"]
    assert found.dense.kept == 1.0


def test_seconds_of_making_leave_the_evaluation_out() -> None:
    row = make_bench().rows[1]
    assert row.making_seconds == 3.5
    assert sum(row.seconds.values()) - row.seconds[EVALUATION] == row.making_seconds


def test_a_row_without_figures_has_no_values() -> None:
    *_, failed = make_bench().rows
    assert failed.value("ours") is None
    assert make_bench().rows[0].value("neither") is None


def test_what_is_not_finite_is_written_in_words_and_read_back() -> None:
    found = make_bench()
    text = to_json(found)
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    again = TypeAdapter(MethodBench).validate_json(text)
    assert to_json(again) == text
    value = again.rows[2].value("theirs")
    assert value is not None
    assert math.isnan(value)
    assert again.rows[3] == found.rows[3]
