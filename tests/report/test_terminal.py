"""Reports in the terminal: within its columns, and in words where there are no figures."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from edgelr.core.measurement import CapCheck, OperatorTime
from edgelr.core.report import Report
from edgelr.core.sites import SiteSummary
from edgelr.report.figures import Table
from edgelr.report.terminal import (
    draw_table,
    print_budget,
    print_cap_check,
    print_measurements,
    print_operators,
    print_plan,
    print_report,
    print_sites,
)
from tests.helpers.paths import ROOT
from tests.helpers.reports import MIB, make_report, unmeasured

DOCUMENTATION = ROOT / "docs" / "report.md"


@pytest.fixture
def report() -> Report:
    return make_report()


@pytest.mark.parametrize("columns", [80, 100])
def test_terminal_fits_its_columns(report: Report, columns: int) -> None:
    console = Console(file=io.StringIO(), width=columns)
    for one in (report, unmeasured(report)):
        print_report(one, console)
    print_plan(report.plan, console)
    print_budget(report.budget, report.plan.planned_bytes, console)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert max(len(line) for line in lines) <= columns
    assert "Latency and memory: not measured." in lines


def printed(show: Callable[[Console], None], columns: int = 100) -> str:
    console = Console(file=io.StringIO(), width=columns)
    show(console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_measurements_are_printed_alone_and_in_turns(report: Report) -> None:
    assert report.comparison is not None
    both = printed(lambda console: print_measurements(report.comparison, console))
    assert "0.688" in both
    alone = printed(lambda console: print_measurements(report.comparison.bundle, console))
    assert "Latency on CPUExecutionProvider" in alone
    assert "67.5 / 101.5 / 102.5" in alone
    assert "bundle / dense" not in alone


def test_operators_have_shares_of_the_whole_time() -> None:
    found = [
        OperatorTime("MatMul", "CPUExecutionProvider", 14, 3.0),
        OperatorTime("Add", "CPUExecutionProvider", 7, 1.0),
    ]
    lines = printed(lambda console: print_operators(found, console)).splitlines()
    rows = [line.split() for line in lines if "%" in line]
    assert rows == [
        ["MatMul", "CPU", "14", "3", "75.0", "%"],
        ["Add", "CPU", "7", "1", "25.0", "%"],
    ]


def test_a_check_under_a_cap_says_how_it_ended() -> None:
    found = CapCheck(400 * MIB, "cgroup", None, 300 * MIB, 2048, 512, "")
    shown = printed(lambda console: print_cap_check(found, console))
    assert "Under a cap (cgroup)" in shown
    assert ["predicted", "–"] in [line.split() for line in shown.splitlines()]
    assert "It ran with a context of 2,048 tokens" in shown


def test_spectra_are_bars_from_nothing_to_all() -> None:
    spectrum = (1.0, 0.5, 0.25, 0.0)
    rows = [
        SiteSummary("a", 24, 40, "a", 12.5, 3, 0.25, spectrum, "LRC", 7),
        SiteSummary("b", 24, 16, "a", 11.5, 3, 0.5, spectrum, "N-LRC", 8),
    ]
    shown = printed(lambda console: print_sites(rows, console))
    assert "2 linears" in shown
    assert shown.count("█▄▂ ") == 2
    assert "itself" in shown
    assert "25%" in shown


def test_markup_in_names_is_printed_as_it_is() -> None:
    table = Table(("[bold]name", "b"), (("[red]x[/red]", "1"),))
    shown = printed(lambda console: draw_table(console, "[blue]title", table))
    assert all(text in shown for text in ("[bold]name", "[red]x[/red]", "[blue]title"))
