"""How figures read: sizes, shares, and sentences that say whether something is good news."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgelr.core.measurement import CapCheck
from edgelr.core.plan import Budget
from edgelr.core.report import Report
from edgelr.core.results import Gate, Interval, Parity
from edgelr.device.budget import longest_context_tokens
from edgelr.report.figures import (
    NOT_MEASURED,
    UNDECIDED,
    cap_sentence,
    context_sentence,
    environment_facts,
    figure,
    gate_sentence,
    measured_heading,
    measured_on_device,
    mib,
    model_name,
    percent,
    speed_verdict,
    verdicts,
)
from edgelr.report.tables import latency_table
from tests.helpers.reports import MIB, make_report, unmeasured

GATE = Gate("perplexity", 21.0, 22.0, higher_is_better=False, worst=21.5)
CAP = CapCheck(1000, "cgroup", 900, 950, 2048, 512, "")
BUDGET = Budget(1000, 100, 50, 25, 12, 140, 7, context_token_bytes=20, model_tokens=30)


@pytest.fixture
def report() -> Report:
    return make_report()


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0.0"), (1 << 10, "0.001"), (9.9994 * MIB, "9.999"), (10 * MIB, "10.0"),
     (1234.56 * MIB, "1,234.6"), (-20 * MIB, "-20.0"), (-2 * MIB, "-2.000")],
)  # fmt: skip
def test_small_sizes_keep_three_decimals(size: float, text: str) -> None:
    assert mib(size) == text


def test_shares_and_figures_are_short() -> None:
    assert (percent(0.6), percent(1.0), percent(0.00049)) == ("60.0 %", "100.0 %", "0.0 %")
    assert (figure(12345.678), figure(0.000123456), figure(7)) == ("12,346", "0.00012346", "7")
    assert figure(None) == NOT_MEASURED


def test_what_was_not_measured_is_neither_good_nor_bad(report: Report) -> None:
    nothing = unmeasured(report)
    assert [each.good for each in verdicts(nothing)] == [True, None, None]
    assert speed_verdict(nothing).good is None


def test_a_verdict_is_good_where_everything_it_speaks_of_is(report: Report) -> None:
    assert report.validation is not None
    parity = replace(report.validation.parity or Parity(0, 0, 0, 0, 0, 0), greedy_identical=8)
    good = replace(report, validation=replace(report.validation, parity=parity))
    assert [each.good for each in verdicts(good)] == [True, True, True]
    bad = replace(
        report, fits=False, validation=replace(report.validation, gate=replace(GATE, worst=23.0))
    )
    assert [each.good for each in verdicts(bad)] == [False, False, False]
    assert (
        "no gate was set"
        in verdicts(replace(report, validation=replace(report.validation, gate=None)))[1].text
    )


def test_speed_is_proven_on_the_device_alone(report: Report) -> None:
    here = speed_verdict(report)
    assert here.good is None
    assert here.text.startswith("Not timed on Jetson Orin Nano 8 GB; on this host it runs")
    assert "PREDICTED for the device: prefill 128 in 0.679, decode 512 in 0.662." in here.text
    assert "PREDICTED" not in speed_verdict(replace(report, prediction=None)).text
    there = replace(report, host_is_device=True)
    assert speed_verdict(there).good
    assert report.comparison is not None
    ratios = {**report.comparison.ratios, "decode 512": 1.1}
    slow = replace(there, comparison=replace(report.comparison, ratios=ratios))
    assert speed_verdict(slow).good is False
    assert speed_verdict(slow).text.startswith("Not faster in every phase")


def test_an_interval_that_holds_1_leaves_it_undecided_who_is_faster(report: Report) -> None:
    assert report.comparison is not None
    intervals = {"prefill 128": Interval(0.6, 0.75, 10), "decode 512": Interval(0.65, 1.01, 10)}
    unsure = replace(report.comparison, intervals=intervals)
    told = speed_verdict(replace(report, comparison=unsure, host_is_device=True))
    assert told.good is None
    assert told.text.startswith("Undecided whether faster in every phase")
    assert "prefill 128 in 0.688, decode 512 in 0.713 (undecided)" in told.text
    rows = latency_table(unsure, percentiles=False).rows
    assert [row[4] for row in rows] == ["0.60 to 0.75", "0.65 to 1.01, undecided"]


def test_a_prediction_is_held_against_the_device_alone(report: Report) -> None:
    assert measured_on_device(report) is None
    assert "not on Jetson" in measured_heading(report)
    there = replace(report, host_is_device=True)
    assert measured_on_device(there) is report.comparison
    assert measured_heading(there) == "Measured on Jetson Orin Nano 8 GB"


@pytest.mark.parametrize(
    ("weight_bytes", "tokens", "at_most"), [(0, 30, True), (213, 30, True), (214, 29, False)]
)
def test_a_context_that_the_model_limits_is_said_to_be_its_most(
    weight_bytes: int, tokens: int, at_most: bool
) -> None:
    assert longest_context_tokens(BUDGET, weight_bytes) == tokens
    told = context_sentence(BUDGET, weight_bytes)
    assert f"has {tokens} tokens" in told
    assert (", the most that the model takes" in told) is at_most


def test_without_a_cache_no_context_is_spoken_of() -> None:
    assert context_sentence(replace(BUDGET, cache_bytes=0), 0) == ""
    assert "the most" not in context_sentence(replace(BUDGET, model_tokens=None), 0)


@pytest.mark.parametrize(
    ("predicted", "problem", "told"),
    [
        (900, "", "It ran with a context of 2,048 tokens, 512 read at once."),
        (None, "", "It ran with a context of 2,048 tokens, 512 read at once."),
        (1001, "", "the prediction had said that it would not"),
        (900, "killed", "although the prediction had said that it would run: killed"),
        (1001, "killed", "read at once, as predicted: killed"),
    ],
)
def test_a_prediction_is_held_against_what_ran(
    predicted: int | None, problem: str, told: str
) -> None:
    said = cap_sentence(replace(CAP, predicted_bytes=predicted, problem=problem))
    assert told in said
    assert ("prediction" in said) == ("prediction" in told)


def test_a_gate_says_its_bound_and_whether_more_samples_would_decide() -> None:
    passed = gate_sentence(GATE)
    assert passed == (
        "Accuracy gate passed: perplexity is 21 and at most 21.5 with 95 % confidence, "
        "allowed is at most 22."
    )
    assert gate_sentence(replace(GATE, worst=23.0)).endswith(UNDECIDED)
    assert gate_sentence(replace(GATE, worst=23.0, samples=1234)).endswith(
        f"{UNDECIDED} About 3,800 more than the 1,234 samples would decide (an estimate: intervals "
        f"shrink with the root of their number)."
    )
    agreement = Gate("top1_agreement", 0.9, 0.95, higher_is_better=True)
    failed = gate_sentence(agreement)
    assert failed == "Accuracy gate FAILED: top1_agreement is 0.9, allowed is at least 0.95."


def test_versions_are_those_of_packages() -> None:
    names = {"platform": "linux", "cpu": "EPYC", "machine": "x86_64", "numpy": "2.1", "onnx": "1"}
    assert environment_facts(names) == ("machine: EPYC", "versions: numpy 2.1, onnx 1")
    assert environment_facts({"machine": "aarch64"})[0] == "machine: aarch64"
    assert environment_facts({})[0] == "machine: unknown"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("owner/tiny-model", "owner/tiny-model"),
        ("/home/someone/tiny.Q4_1.gguf", "tiny.Q4_1"),
        ("models/tiny.onnx", "tiny"),
        ("models/deep/folder/", "folder"),
        (r"C:\models\tiny", "tiny"),
        ("package.module:factory", "package.module:factory"),
    ],
)
def test_a_path_is_named_by_its_last_part_and_a_hub_id_stays(source: str, name: str) -> None:
    assert model_name(source) == name
