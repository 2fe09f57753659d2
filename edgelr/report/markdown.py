"""A report as Markdown, in which every missing measurement is named as missing."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from edgelr.report import plan_tables, tables
from edgelr.report.figures import (
    NOT_MEASURED,
    Table,
    context_sentence,
    figure,
    measured_heading,
    measured_on_device,
    mib,
    model_name,
    percent,
    verdicts,
)
from edgelr.report.rivals import rivals_heading, rivals_table

if TYPE_CHECKING:
    from edgelr.core.measurement import Comparison
    from edgelr.core.plan import Plan
    from edgelr.core.report import Report
    from edgelr.core.results import Validation

PREDICTED = (
    "From the profile's rates, node by node: a roofline, or tables that were measured on the "
    "device. None of these figures was measured with this model."
)
NOT_THE_DEVICE = (
    "These figures compare the bundle with the dense export on the machine that wrote this "
    "report. None of them stands for the device."
)


def to_markdown(report: Report) -> str:
    """Write a whole report, from the verdict to the command that reproduces it."""
    sections = [
        f"# {model_name(report.source)} on {report.profile_title}",
        "\n".join(f"- **{verdict.text}**" for verdict in verdicts(report)),
        *_sizes(report),
        *_accuracy(report.validation),
        *_measured(report),
        *_predicted(report),
        *rivals_sections(report),
        *_plan(report.plan),
        *_run(report),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def draw(table: Table) -> str:
    """Draw a table: the label to the left, figures to the right."""
    marks = [":--"] + ["--:"] * (len(table.columns) - 1)
    return "\n".join(_line(cells) for cells in (table.columns, marks, *table.rows))


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _sizes(report: Report) -> list[str]:
    budget = tables.budget_table(report.budget, report.plan.resident_bytes)
    longest = context_sentence(report.budget, report.plan.resident_bytes)
    return ["## Size", draw(budget), longest, draw(tables.size_table(report))]


def _accuracy(validation: Validation | None) -> list[str]:
    if validation is None:
        return ["## Accuracy", f"Accuracy: {NOT_MEASURED}.", f"Parity: {NOT_MEASURED}."]
    told = f"{validation.precision} with {validation.provider}, on {validation.text}."
    metrics = draw(tables.accuracy_table(validation)) if validation.metrics else NOT_MEASURED
    parity = validation.parity
    parity_text = draw(tables.parity_table(parity)) if parity else f"Parity: {NOT_MEASURED}."
    dense = validation.dense_parity
    dense_text = [draw(tables.dense_parity_table(dense))] if dense else []
    return ["## Accuracy", told, metrics, parity_text, *dense_text, bullets(validation.notes)]


def _measured(report: Report) -> list[str]:
    comparison = report.comparison
    if comparison is None:
        return ["## Latency and memory", f"Latency: {NOT_MEASURED}.", f"Memory: {NOT_MEASURED}."]
    return [
        f"## {measured_heading(report)}: latency and memory",
        "" if report.host_is_device else NOT_THE_DEVICE,
        measured_sentence(comparison, "`"),
        draw(tables.latency_table(comparison)),
        draw(tables.memory_table(comparison)),
    ]


def _predicted(report: Report) -> list[str]:
    if report.prediction is None:
        return ["## PREDICTED for the device", "There is no prediction."]
    return [
        f"## PREDICTED for {report.profile_title}",
        PREDICTED,
        draw(tables.prediction_table(report.prediction, measured_on_device(report))),
    ]


def rivals_sections(report: Report) -> list[str]:
    """Set the bundle beside its rivals, and say which to ship; nothing where none was asked for."""
    if report.rivals is None:
        return []
    table = rivals_table(report)
    shown = [f"{rivals_heading(report)}.", draw(table)] if table.rows else []
    return ["## What to ship", f"**{report.rivals.told}**", *shown]


def _plan(plan: Plan) -> list[str]:
    roles, reasons = plan_tables.role_table(plan), plan_tables.dense_sentences(plan)
    return ["## Plan", plan_sentence(plan, "`"), draw(roles), bullets(reasons)]


def plan_sentence(plan: Plan, quote: str) -> str:
    """Say what a plan keeps; names stand between ``quote``."""
    return (
        f"Recipe {quote}{plan.recipe}{quote}, allocator {quote}{plan.allocator}{quote}: "
        f"{mib(plan.planned_bytes)} MiB planned of {mib(plan.budget_bytes)} MiB allowed, "
        f"{percent(plan.kept)} of the factorizable weights' bytes kept; predicted loss "
        f"{figure(plan.predicted_loss)}."
    )


def measured_sentence(comparison: Comparison, quote: str = "") -> str:
    """Say how latency was measured."""
    bundle = comparison.bundle
    return (
        f"{bundle.provider}, {bundle.precision}, {bundle.threads} thread(s), dense and bundle "
        f"alternately. Times are p50 / p90 / p99; {quote}bundle / dense{quote} is the ratio of "
        f"the medians; where its interval holds 1, it is undecided which is faster."
    )


def _run(report: Report) -> list[str]:
    facts = (
        f"created: {report.created}",
        f"weights: `{report.digest}`",
        *(f"{name}: {value}" for name, value in report.environment.items()),
        f"peak memory of the run: {mib(report.peak_bytes)} MiB",
        *(f"{stage}: {spent:,.1f} s" for stage, spent in report.seconds.items()),
    )
    return [
        "## How it was made",
        bullets(report.notes),
        fence("bash", report.command),
        bullets(facts),
    ]


def fence(language: str, text: str) -> str:
    """Fence a block of code with more backticks than it holds in a row."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}{language}\n{text.rstrip()}\n{ticks}"


def bullets(lines: Iterable[str]) -> str:
    """Write one list item per line."""
    return "\n".join(f"- {line}" for line in lines)
