"""A report, a plan or a budget in the terminal, within 100 columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgelr.core.measurement import Comparison
from edgelr.report import plan_tables, tables
from edgelr.report.figures import (
    NOT_MEASURED,
    Table,
    cap_sentence,
    context_sentence,
    figure,
    gate_sentence,
    measured_heading,
    measured_on_device,
    mib,
    percent,
    verdicts,
)
from edgelr.report.rivals import rivals_heading, rivals_table

if TYPE_CHECKING:
    from rich.console import Console, JustifyMethod

    from edgelr.core.measurement import CapCheck, Measurement, OperatorTime
    from edgelr.core.plan import Budget, Plan
    from edgelr.core.report import Report
    from edgelr.core.results import Validation
    from edgelr.core.sites import SiteSummary

BARS = " ▁▂▃▄▅▆▇█"
MAX_COLUMNS = 100
STYLES = {True: "bold green", False: "bold red", None: "yellow"}


def print_report(report: Report, console: Console | None = None) -> None:
    """Print the verdict, then sizes, accuracy, latency and memory."""
    console = console or _console()
    for verdict in verdicts(report):
        console.print(verdict.text, style=STYLES[verdict.good], markup=False, highlight=False)
    draw_table(console, "Size", tables.size_table(report))
    if report.validation is not None and report.validation.metrics:
        draw_table(console, "Accuracy", tables.accuracy_table(report.validation))
    if report.comparison is None:
        _say(console, f"Latency and memory: {NOT_MEASURED}.")
    else:
        latency = tables.latency_table(report.comparison, percentiles=False)
        draw_table(console, f"{measured_heading(report)} (median)", latency)
        draw_table(console, measured_heading(report), tables.memory_table(report.comparison))
        for note in report.comparison.notes:
            _say(console, note)
    if report.prediction is not None:
        title = f"PREDICTED for {report.profile_title}"
        draw_table(
            console, title, tables.prediction_table(report.prediction, measured_on_device(report))
        )
    if report.rivals is not None:
        shown = rivals_table(report, intervals=False)
        if shown.rows:
            draw_table(console, rivals_heading(report), shown)
        console.print(report.rivals.told, style="bold", markup=False, highlight=False)


def print_plan(plan: Plan, console: Console | None = None) -> None:
    """Print the plan by role, and why some sites stay dense."""
    console = console or _console()
    draw_table(console, f"Plan: {plan.recipe}, {plan.allocator}", plan_tables.role_table(plan))
    _say(
        console,
        f"{mib(plan.planned_bytes)} MiB planned of {mib(plan.budget_bytes)} MiB allowed; "
        f"{percent(plan.kept)} of the factorizable weights' bytes kept; "
        f"predicted loss {figure(plan.predicted_loss)}.",
    )
    for sentence in plan_tables.dense_sentences(plan):
        _say(console, sentence)


def print_budget(budget: Budget, weight_bytes: int, console: Console | None = None) -> None:
    """Print the budget of the device's memory, and the part that the plan takes."""
    console = console or _console()
    draw_table(console, "Budget", tables.budget_table(budget, weight_bytes))
    if sentence := context_sentence(budget, weight_bytes):
        _say(console, sentence)


def print_metrics(validation: Validation, console: Console | None = None) -> None:
    """Print accuracy figures, the verdict of the gate, and parity where there is one."""
    console = console or _console()
    if validation.parity is not None:
        draw_table(console, "Answers", tables.parity_table(validation.parity))
    draw_table(console, f"Accuracy on {validation.text}", tables.accuracy_table(validation))
    if validation.gate is not None:
        gate = gate_sentence(validation.gate)
        console.print(gate, style=STYLES[validation.gate.passed], markup=False, highlight=False)
    for note in validation.notes:
        _say(console, note)


def print_measurements(found: Measurement | Comparison, console: Console | None = None) -> None:
    """Print latency and memory of one folder, or of two in turns."""
    console = console or _console()
    if isinstance(found, Comparison):
        draw_table(console, "Latency (median)", tables.latency_table(found, percentiles=False))
    else:
        draw_table(console, f"Latency on {found.provider}", tables.phase_table(found))
    draw_table(console, "Memory", tables.memory_table(found))
    for note in found.notes:
        _say(console, note)


def print_operators(found: list[OperatorTime], console: Console | None = None) -> None:
    """Print the provider and the time of every operator."""
    title = "Operators of one run, profiled"
    draw_table(console or _console(), title, tables.operator_table(found))


def print_cap_check(found: CapCheck, console: Console | None = None) -> None:
    """Print the memory that a bundle was allowed, was predicted to take, and took."""
    console = console or _console()
    draw_table(console, f"Under a cap ({found.mechanism})", tables.cap_table(found))
    console.print(cap_sentence(found), style=STYLES[found.passed], markup=False, highlight=False)


def print_sites(rows: Sequence[SiteSummary], console: Console | None = None) -> None:
    """Print the factorizable linears of a model, each with its singular values as bars."""
    table = Table(
        (
            "linear",
            "in",
            "out",
            "reads the input of",
            "spectrum",
            "effective",
            "tail",
            "class",
            "rank",
        ),
        tuple(
            (
                row.name,
                str(row.in_features),
                str(row.out_features),
                "itself" if row.reads == row.name else row.reads,
                "".join(BARS[round(value * (len(BARS) - 1))] for value in row.spectrum),
                str(row.effective_rank),
                f"{row.tail:.0%}",
                row.component,
                str(row.rank),
            )
            for row in rows
        ),
    )
    draw_table(console or _console(), f"{len(rows)} linears", table)


def _console() -> Console:
    from rich.console import Console

    console = Console()
    return Console(width=min(console.width, MAX_COLUMNS))


def draw_table(console: Console, title: str, table: Table) -> None:
    """Draw a table: the label to the left, figures to the right."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(title=Text(title), box=SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for index, column in enumerate(table.columns):
        side: JustifyMethod = "right" if index else "left"
        drawn.add_column(Text(column), justify=side, overflow="fold")
    for row in table.rows:
        drawn.add_row(*(Text(cell) for cell in row))
    console.print(drawn)


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False)
