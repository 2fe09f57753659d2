"""Rivals beside the bundle: what each is, how large, how accurate and how fast."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgelr.core.measurement import Comparison
from edgelr.core.report import Report, Rivals
from edgelr.core.results import Interval
from edgelr.report.card import model_card
from edgelr.report.rivals import contenders, rivals_chart, rivals_heading, rivals_table
from tests.helpers.reports import MIB, make_report, measurement, rival


@pytest.fixture
def report() -> Report:
    return make_report()


def timed(report: Report, ratio: float, low: float, high: float, *notes: str) -> Report:
    """The same with rivals that were measured: each takes ``ratio`` of the original's time."""
    sides = (measurement("dense", 98.5), measurement("rival", 98.5 * ratio))
    found = Comparison(
        *sides, {"prefill 128": ratio}, {"prefill 128": Interval(low, high, 10)}, notes
    )
    assert report.rivals is not None
    quantized = tuple(
        replace(each, comparison=found, prediction=None) for each in report.rivals.quantized
    )
    return replace(report, rivals=replace(report.rivals, quantized=quantized))


def test_a_row_has_size_accuracy_time_and_what_speaks_against_it(report: Report) -> None:
    table = rivals_table(report)
    assert table.columns == (
        *("rivals", "file MiB", "perplexity", "95 % interval"),
        *("prefill 128", "decode 512", "verdict"),
    )
    assert [row[0] for row in table.rows] == ["dense", "dense int8", "dense int4", "bundle"]
    assert [row[-1] for row in table.rows] == ["–", "–", "is outside the gate", "ship"]
    assert rivals_heading(report).endswith("PREDICTED for Jetson Orin Nano 8 GB")


def test_measured_times_have_intervals_and_say_where_they_were_measured(report: Report) -> None:
    there = timed(report, 0.5, 0.475, 0.525)
    assert "measured on this host, not on Jetson" in rivals_heading(there)
    rows = {row[0]: row for row in rivals_table(there, intervals=False).rows}
    assert rows["dense int8"][3] == "0.500 (0.47 to 0.53)"
    assert rows["bundle"][3] == "0.688"  # without an interval
    here = replace(there, host_is_device=True)
    assert rivals_heading(here).endswith("measured on Jetson Orin Nano 8 GB")


def test_the_chart_draws_the_loss_of_each_over_its_bytes(report: Report) -> None:
    chart = rivals_chart(report)
    assert [(point.x, point.rival, point.usable) for point in chart.points] == [
        (150.0, True, True),
        (97.0, True, True),
        (52.0, True, False),
        (90.0, False, False),  # its parity is not whole
    ]
    losses = [point.y for point in chart.points]
    assert losses == pytest.approx([0.0, 20 / 22.55, 470 / 22.55, 90 / 22.55])


def test_what_does_not_fit_or_fails_its_parity_is_not_to_be_shipped(report: Report) -> None:
    assert report.validation is not None  # seven of eight greedy texts are equal in it
    found = {each.name: each for each in contenders(report)}
    assert found["bundle"].problem == "fails its parity"
    assert report.rivals is not None
    large = replace(rival("int8", 97 * MIB, 22.75), fits=False)
    tight = replace(report, rivals=Rivals((large,), original_fits=False))
    problems = {each.name: each.problem for each in contenders(tight)}
    assert problems["dense"] == problems["dense int8"] == "does not fit the device"


def test_the_card_says_what_to_ship(report: Report) -> None:
    card = model_card(report, "decoder")
    assert "## What to ship\n\n**Ship the bundle, as it is made up here.**" in card
    assert "| dense int8 | 97.0 | 22.75 |" in card
    alone = replace(report, rivals=Rivals((), True, told="There is no rival: a reason."))
    assert "**There is no rival: a reason.**\n\n## " in model_card(alone, "decoder")
    assert "What to ship" not in model_card(replace(report, rivals=None), "decoder")
