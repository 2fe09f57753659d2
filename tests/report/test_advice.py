"""What to ship is said by size, gate and time, and what is undecided is said to be so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgelr.core.report import Report, Rival, Rivals
from edgelr.core.results import Gate, Interval
from edgelr.report.advice import advised
from edgelr.report.rivals import contenders
from edgelr.report.schema import from_json, to_json
from tests.helpers.reports import MIB, make_report, rival
from tests.report.test_rivals import timed


@pytest.fixture
def report() -> Report:
    """Its bundle has 90 MiB, perplexity 23.45 and 0.679 of the original's prefill, predicted."""
    report = make_report()
    assert report.validation is not None
    assert report.comparison is not None
    return replace(report, validation=replace(report.validation, parity=None))


def against(report: Report, *quantized: Rival) -> Report:
    return replace(report, rivals=Rivals(quantized, original_fits=True))


def advice(report: Report) -> tuple[str | None, str]:
    found = advised(report)
    assert found is not None
    return found.ship, found.told


def test_a_bundle_that_nothing_beats_is_shipped_and_each_rival_has_its_reason(
    report: Report,
) -> None:
    ship, told = advice(report)
    assert ship == "bundle"
    assert told == (
        "Ship the bundle (90.0 MiB): the original is larger (150.0 MiB), the original in int8 is "
        "larger (97.0 MiB), the original in int4 is outside the gate (perplexity 27.25, allowed "
        "is at most 24.125)."
    )


@pytest.mark.parametrize("size", [40 * MIB, 90 * MIB])
def test_a_rival_that_is_no_larger_inside_the_gate_and_not_slower_is_shipped(
    report: Report, size: int
) -> None:
    ship, told = advice(against(report, rival("int8", size, 22.75)))
    assert ship == "dense int8"
    assert told == (
        f"Ship the original in int8 ({size / MIB:.1f} MiB): it is no larger than the bundle "
        f"(90.0 MiB) and inside the gate (perplexity 22.75, the bundle's 23.45), and not slower "
        f"(PREDICTED for Jetson Orin Nano 8 GB)."
    )


def test_a_rival_that_is_smaller_and_slower_does_not_beat_the_bundle(report: Report) -> None:
    ship, told = advice(against(report, rival("int8", 40 * MIB, 22.75, prefill_ms=30.0)))
    assert ship == "bundle"
    assert "the original in int8 is no larger (40.0 MiB), but slower: prefill 128 takes" in told


def test_predictions_that_no_measurement_could_tell_apart_decide_nothing(report: Report) -> None:
    ship, told = advice(against(report, rival("int8", 40 * MIB, 22.75, prefill_ms=22.9)))
    assert ship == "dense int8"
    assert "Whether it is slower is undecided: prefill 128 takes 0.97 to 1.05 of the" in told


def test_measured_times_decide_by_both_intervals(report: Report) -> None:
    smaller = against(report, rival("int8", 40 * MIB, 22.75))
    assert advice(timed(smaller, 0.5, 0.45, 0.55))[1].endswith(
        "and not slower (measured on this host, not on Jetson Orin Nano 8 GB)."
    )
    slower = advice(timed(smaller, 0.8, 0.75, 0.85))
    assert slower[0] == "bundle"
    undecided = advice(timed(smaller, 0.7, 0.65, 0.75))
    assert undecided[0] == "dense int8"
    assert "is undecided: prefill 128 takes 0.95 to 1.09 of the bundle's time" in undecided[1]


def test_an_interval_from_nothing_on_has_no_upper_end(report: Report) -> None:
    smaller = timed(against(report, rival("int8", 40 * MIB, 22.75)), 0.7, 0.65, 0.75)
    assert smaller.comparison is not None
    wide = {"prefill 128": Interval(0.0, 1.3, 10)}
    unsure = replace(smaller, comparison=replace(smaller.comparison, intervals=wide))
    assert "undecided: prefill 128 takes 0.50 or more of the bundle's time" in advice(unsure)[1]


def test_a_busy_machine_proves_no_speed(report: Report) -> None:
    smaller = against(report, rival("int8", 40 * MIB, 22.75))
    ship, told = advice(timed(smaller, 0.5, 0.45, 0.55, "The machine was busy."))
    assert ship == "dense int8"
    assert "Whether it is slower is undecided" in told
    assert "on a busy machine" in told


def test_where_the_bundle_fails_the_smallest_that_is_usable_is_shipped(report: Report) -> None:
    assert report.validation is not None
    gate = Gate("perplexity", 24.0, 24.125, higher_is_better=False, worst=24.5, samples=100)
    unsure = replace(report, validation=replace(report.validation, gate=gate))
    ship, told = advice(unsure)
    assert ship == "dense int8"
    assert told == (
        "Ship the original in int8 (97.0 MiB): the bundle is not shown to be inside the gate "
        "(perplexity 24, allowed is at most 24.125; the sample is too small)."
    )


def test_where_nothing_is_usable_nothing_is_shipped(report: Report) -> None:
    large = replace(rival("int8", 97 * MIB, 22.75), fits=False)
    ship, told = advice(replace(report, fits=False, rivals=Rivals((large,), original_fits=False)))
    assert ship is None
    assert told.startswith("Ship none of them: the original does not fit the device, ")


def test_why_there_is_no_rival_stays(report: Report) -> None:
    alone = replace(report, rivals=Rivals((), True, told="There is no rival: a reason."))
    assert advised(alone) == alone.rivals
    assert contenders(alone) == []
    assert advised(replace(report, rivals=None)) is None


def test_what_an_older_edgelr_wrote_has_no_rivals(report: Report) -> None:
    text = to_json(replace(report, rivals=None))
    assert from_json(text.replace(',\n  "rivals": null', "")).rivals is None
