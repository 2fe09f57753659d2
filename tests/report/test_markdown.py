"""Reports in Markdown: all figures, failures first, and what is missing is said."""

from __future__ import annotations

import dataclasses

import pytest

from edgelr.core.report import Report
from edgelr.core.results import Gate
from edgelr.report.figures import Table
from edgelr.report.markdown import draw, fence, to_markdown
from tests.helpers.paths import ROOT
from tests.helpers.reports import make_report, unmeasured

DOCUMENTATION = ROOT / "docs" / "report.md"


@pytest.fixture
def report() -> Report:
    return make_report()


def test_markdown_contains_the_figures(report: Report) -> None:
    text = to_markdown(report)
    figures = (
        "1,234.0 MiB to spare",
        "| planned weights | 43.0 |",
        "| headroom | 6,141.0 |",
        "| key/value cache of 2,048 tokens | 45.0 |",
        "| model files | 150.0 | 90.0 | 60.0 % |",
        "| perplexity | 22.55 | 23.45 | 23.1 to 23.8 | 16,384 in 128 parts |",
        "perplexity is 23.45 and at most 23.8 with 95 % confidence, allowed is at most 24.125",
        "at most 24.125",
        "7 of 8",
        "98.5 / 101.5 / 102.5",
        "| 0.688 |",
        "| bundle | 300.0 | 77.0 | 411.0 |",
        "**Ship the bundle, as it is made up here.**",
        "| dense | 150.0 | 22.55 | – | 1.000 | 1.000 | – |",
        "| dense int8 | 97.0 | 22.75 | 22.5 to 23 | 0.601 | – | – |",
        "| dense int4 | 52.0 | 27.25 | 27 to 27.5 | 0.601 | – | is outside the gate |",
        "| bundle | 90.0 | 23.45 | 23.1 to 23.8 | 0.679 | 0.662 | ship |",
        "PREDICTED for Jetson Orin Nano 8 GB",
        "| self_attn.q_proj | 2 | 0 | 1 | 1 | 57.5 % |",
        "1 dense: dense is smaller",
        report.command,
    )
    assert [figure for figure in figures if figure not in text] == []


def test_a_failed_gate_and_a_failed_parity_are_said_first(report: Report) -> None:
    assert report.validation is not None
    gate = Gate("accuracy", 0.5, 0.75, higher_is_better=True)
    validation = dataclasses.replace(report.validation, gate=gate)
    failed = dataclasses.replace(report, fits=False, validation=validation)
    verdict = to_markdown(failed).split("## ")[0]
    assert "Does not fit" in verdict
    assert "gate FAILED: accuracy is 0.5, allowed is at least 0.75" in verdict
    assert "Parity FAILED" in verdict


def test_host_figures_never_stand_for_the_device(report: Report) -> None:
    heading = "Measured on this host, not on Jetson Orin Nano 8 GB"
    assert heading in to_markdown(report)
    assert "None of them stands for the device" in to_markdown(report)
    on_device = to_markdown(dataclasses.replace(report, host_is_device=True))
    assert heading not in on_device
    assert "Measured on Jetson Orin Nano 8 GB" in on_device


def test_missing_sections_are_said_not_hidden(report: Report) -> None:
    text = to_markdown(unmeasured(report))
    for section in ("Accuracy", "Parity", "Latency", "Memory"):
        assert f"{section}: not measured" in text


@pytest.mark.parametrize("inside", ["", "`", "``` three", "````"])
def test_a_fence_is_longer_than_any_inside(inside: str) -> None:
    first, *text, last = fence("bash", f"run {inside}\n").split("\n")
    assert first == f"{last}bash"
    assert text == [f"run {inside}".rstrip()]
    assert last not in inside
    assert set(last) == {"`"}


def test_a_bar_in_a_cell_is_no_border() -> None:
    assert draw(Table(("a", "b"), (("x|y", "1"),))).split("\n") == [
        "| a | b |",
        "| :-- | --: |",
        "| x\\|y | 1 |",
    ]
