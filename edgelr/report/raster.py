"""Charts as PNG, drawn by matplotlib: for documents that take no SVG."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib import rc_context
from matplotlib.figure import Figure

from edgelr.report.charts import Bars, Chart, HeatMap, Scatter, Waterfall
from edgelr.report.plot import (
    STABLE,
    STABLE_METADATA,
    WIDTH_INCHES,
    draw_scatter,
    scatter_height,
)
from edgelr.report.svg import STRONG

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {
    "dense": "0.55",
    "bundle": "C0",
    "given": "0.55",
    "used": "C0",
    "free": "C2",
    "over": "C3",
}
HATCH = "////"  # of what was predicted
LINE_INCHES = 0.3


def write_png(chart: Chart, path: Path) -> None:
    """Draw a chart into ``path``; the same chart gives the same bytes."""
    with rc_context({**STABLE, "hatch.linewidth": 0.6}):
        figure = Figure(figsize=(WIDTH_INCHES, _height(chart)), layout="constrained")
        panel = figure.subplots()
        panel.set_title(chart.title, parse_math=False, loc="left")
        if isinstance(chart, Bars):
            _bars(panel, chart)
        elif isinstance(chart, Waterfall):
            _waterfall(panel, chart)
        elif isinstance(chart, HeatMap):
            _heat_map(panel, chart)
        else:
            draw_scatter(panel, chart)
        figure.savefig(path, dpi=150, metadata=STABLE_METADATA[".png"])


def _height(chart: Chart) -> float:
    if isinstance(chart, Bars):
        return 1.0 + LINE_INCHES * sum(len(group.bars) + 1 for group in chart.groups)
    if isinstance(chart, Scatter):
        return scatter_height(chart)
    rows = len(chart.steps if isinstance(chart, Waterfall) else chart.rows)
    return 1.6 + LINE_INCHES * rows


def _bars(panel: Axes, chart: Bars) -> None:
    """Draw every bar over the longest of its group, so that groups of other units have room."""
    rows, labels = [], []
    for group in chart.groups:
        known = chart.groups if chart.one_scale else (group,)
        longest = max(max(bar.value, bar.high or 0.0) for each in known for bar in each.bars) or 1.0
        rows.append((0.0, "bundle", False, ""))
        labels.append(f"{group.title}\n{group.note}" if group.note else group.title)
        for bar in group.bars:
            rows.append((bar.value / longest, bar.kind, bar.predicted, bar.text))
            labels.append(f"{bar.label} (PREDICTED)" if bar.predicted else bar.label)
    for index, (length, kind, predicted, text) in enumerate(rows):
        _bar(panel, index, 0.0, length, kind, predicted, text)
    _label_rows(panel, labels)


def _waterfall(panel: Axes, chart: Waterfall) -> None:
    for index, step in enumerate(chart.steps):
        length = (step.end - step.start) / chart.total
        start = step.start / chart.total
        _bar(panel, index, start, length, step.kind, step.predicted, step.text)
    labels = [f"{s.label} (PREDICTED)" if s.predicted else s.label for s in chart.steps]
    _label_rows(panel, labels)


def _bar(
    panel: Axes, row: int, start: float, length: float, kind: str, predicted: bool, text: str
) -> None:
    panel.barh(
        row,
        length,
        left=start,
        height=0.6,
        color="white" if predicted else COLOURS[kind],
        edgecolor=COLOURS[kind],
        hatch=HATCH if predicted else None,
    )
    panel.text(1.02, row, text, va="center", fontsize=8, parse_math=False)


def _label_rows(panel: Axes, labels: list[str]) -> None:
    panel.set_yticks(range(len(labels)), labels, fontsize=8, parse_math=False)
    panel.set_xlim(0, 1.35)
    panel.set_xticks([])
    panel.invert_yaxis()
    panel.spines[["top", "right", "bottom"]].set_visible(False)


def _heat_map(panel: Axes, chart: HeatMap) -> None:
    values = [
        [float("nan") if cell.value is None else cell.value for cell in cells]
        for _, cells in chart.rows
    ]
    panel.imshow(values, cmap="Blues", vmin=0.0, vmax=1.2, aspect="auto")
    for row, (_, cells) in enumerate(chart.rows):
        for column, cell in enumerate(cells):
            colour = "white" if (cell.value or 0.0) >= STRONG else "black"
            panel.text(column, row, cell.text, ha="center", va="center", fontsize=7, color=colour)
    panel.set_xticks(
        range(len(chart.columns)),
        chart.columns,
        rotation=30,
        ha="right",
        fontsize=8,
        parse_math=False,
    )
    rows = [label for label, _ in chart.rows]
    panel.set_yticks(range(len(rows)), rows, fontsize=7, parse_math=False)
