"""A sweep, or bundles beside each other, as one HTML file."""

from __future__ import annotations

from edgelr.report.figures import Table, Verdict, model_name
from edgelr.report.markup import Markup, element, joined
from edgelr.report.page import (
    MEASURED,
    PREDICTED,
    badge,
    bullets,
    code,
    drawn,
    drawn_table,
    page,
    paragraph,
    verdict_list,
)
from edgelr.report.pareto import Sweep
from edgelr.report.pareto_charts import device_charts
from edgelr.report.pareto_tables import READING, device_table, facts, problems, recommendation

POINTS = (
    "Round: edgelr. Square: the original, rounded or as it is. Filled: fits and passes the gate. "
    "The dashed line joins what no other beats in size, accuracy and latency at once."
)


def to_html(found: Sweep) -> str:
    """Write what to ship to each device, and everything that this was chosen from."""
    title = f"{model_name(found.source)} on {', '.join(found.profiles)}"
    told = f"{len(found.entries)} bundles and rivals beside each other, {found.created}."
    verdicts = [
        Verdict(found.best(profile) is not None, recommendation(found, profile))
        for profile in found.profiles
    ]
    devices = [
        (f"device-{index}", profile, _device(found, profile, f"plot-{index}"))
        for index, profile in enumerate(found.profiles)
    ]
    made = joined(code(found.command), bullets(facts(found, quote="")))
    verdict = joined(verdict_list(verdicts), paragraph(READING))
    return page(
        title, told, [("verdict", "Verdict", verdict), *devices, ("made", "How it was made", made)]
    )


def _device(found: Sweep, profile: str, prefix: str) -> Markup:
    charts = device_charts(found, profile)
    figures = [
        drawn(chart, f"{prefix}-{name}", badge(PREDICTED if name == "memory" else MEASURED))
        for name, chart in charts.items()
    ]
    columns, rows = _numbered(device_table(found, profile))
    return joined(
        element("div", figures, class_="grid"),
        paragraph(POINTS),
        drawn_table(Table(columns, rows), profile),
        bullets(problems(found, profile)),
    )


def _numbered(table: Table) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    rows = tuple((f"{number}. {row[0]}", *row[1:]) for number, row in enumerate(table.rows, 1))
    return table.columns, rows
