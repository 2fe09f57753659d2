"""A sweep, or bundles beside each other, as one HTML file."""

from __future__ import annotations

import math
from collections.abc import Callable

from edgelr.report.charts import Chart, Point, Scatter
from edgelr.report.figures import MIB, Table, Verdict, figure, model_name
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
from edgelr.report.pareto import Entry, Sweep
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


def drawings(found: Sweep) -> dict[str, Chart]:
    """Make the charts of every device, by a name that files can have."""
    return {
        f"{profile}-{name}": chart
        for profile in found.profiles
        for name, chart in _charts(found, profile).items()
    }


def _device(found: Sweep, profile: str, prefix: str) -> Markup:
    charts = _charts(found, profile)
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


def _charts(found: Sweep, profile: str) -> dict[str, Chart]:
    """Set accuracy, memory and every phase against the size of the file."""
    phases = dict.fromkeys(name for entry in found.at(profile) for name, _ in entry.latency)

    def ratio(phase: str) -> Callable[[Entry], float]:
        return lambda entry: dict(entry.latency).get(phase, math.nan)

    sides: dict[str, tuple[str, Callable[[Entry], float]]] = {
        "loss": (f"loss of {found.metric}, %", lambda entry: 100 * entry.loss),
        "memory": ("memory on the device, MiB, predicted", lambda entry: entry.memory_bytes / MIB),
    }
    for phase in phases:
        name = "time-" + "".join(each if each.isalnum() else "-" for each in phase)
        sides[name] = (f"time of {phase}, original = 1", ratio(phase))
    return {name: _scatter(found, profile, *side) for name, side in sides.items()}


def _scatter(found: Sweep, profile: str, label: str, value: Callable[[Entry], float]) -> Scatter:
    front = found.front(profile)
    points = tuple(
        Point(
            number,
            f"{entry.name}: {figure(entry.file_bytes / MIB)} MiB, {figure(value(entry))}",
            entry.file_bytes / MIB,
            value(entry),
            rival=entry.name.startswith("dense"),
            usable=entry.fits and entry.passed,
            front=entry in front,
        )
        for number, entry in enumerate(found.at(profile), 1)
        if math.isfinite(value(entry))
    )
    told = "; ".join(f"{point.number}. {point.label}" for point in points)
    title = f"{label[0].upper()}{label[1:]}, against size"
    return Scatter(title, f"{title}. {told}.", "file, MiB", label, points)
