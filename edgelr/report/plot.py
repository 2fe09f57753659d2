"""Curves of a bench, one panel per text; scatters of a sweep, one panel per device."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from edgelr.core.tasks import MetricName
from edgelr.report.pareto_charts import device_charts

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from edgelr.report.charts import Scatter
    from edgelr.report.comparison import MethodBench
    from edgelr.report.pareto import Sweep

PANELS_PER_ROW = 3
LOSSES: dict[MetricName, str] = {
    "perplexity": "perplexity / dense",
    "mean_cosine": "1 - mean cosine to dense",
    "spearman": "1 - rank correlation to dense",
    "top1_agreement": "labels that change",
}
PANEL_INCHES = (5.2, 4.2)
WIDTH_INCHES = 6.4  # of a chart alone, with room for its legend
LEGEND_INCHES = 0.22  # a line of the legend
MARKERS = "osD^v<>pPX*h"
# Equal curves give equal files: no random ids, no date, text as paths of the font that ships.
STABLE: dict[Any, str] = {  # Any: matplotlib 3.11 types the keys as literals, 3.10 as str
    "svg.hashsalt": "edgelr",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
}
STABLE_METADATA = {".svg": {"Date": None}, ".png": {"Software": None}}
WIDE_TICKS, NARROW_TICKS = (1.0, 2.0, 5.0), (1.0, 1.1, 1.2, 1.5, 2.0, 3.0, 5.0)  # of a decade
WIDE = 20.0  # top over bottom of an axis, from which on narrow ticks would overlap


def write_plot(found: MethodBench, highlighted: str, path: Path) -> None:
    """Draw the curves of every recipe into ``path``, ``.svg`` or ``.png``.

    Args:
        found: results of the bench.
        highlighted: recipe whose line is thick.
        path: picture that is written; the same rows give the same bytes.
    """
    with rc_context(STABLE):
        drawn = draw_bench(found, highlighted)
        drawn.savefig(path, dpi=150, metadata=STABLE_METADATA[path.suffix])


def write_sweep_plot(found: Sweep, path: Path) -> None:
    """Draw loss against file size, one panel per device, into ``path``, ``.svg`` or ``.png``."""
    charts = {profile: device_charts(found, profile)["loss"] for profile in found.profiles}
    with rc_context(STABLE):
        columns = min(len(charts), PANELS_PER_ROW)
        lines = math.ceil(len(charts) / columns)
        size = (WIDTH_INCHES * columns, lines * max(map(scatter_height, charts.values())))
        figure = Figure(figsize=size, layout="constrained")
        panels = list(figure.subplots(lines, columns, squeeze=False).flat)
        for panel, (profile, chart) in zip(panels, charts.items(), strict=False):
            panel.set_title(profile, parse_math=False)
            draw_scatter(panel, chart)
        for panel in panels[len(charts) :]:
            panel.set_visible(False)
        figure.savefig(path, dpi=150, metadata=STABLE_METADATA[path.suffix])


def scatter_height(chart: Scatter) -> float:
    """Height of a scatter in inches: the axes, and one line of the legend for each point."""
    return 4.4 + 0.2 * len(chart.points)


def draw_scatter(panel: Axes, chart: Scatter) -> None:
    """Draw numbered points, with their labels below: rivals are squares, usable points filled."""
    front = sorted((point.x, point.y) for point in chart.points if point.front)
    panel.plot([x for x, _ in front], [y for _, y in front], linestyle="--", color="0.6")
    panel.axhline(0.0, color="0.6", linewidth=1.0, linestyle=":")
    for point in chart.points:
        panel.plot(
            point.x,
            point.y,
            marker="s" if point.rival else "o",
            markersize=12,
            linestyle="",
            color="C1" if point.rival else "C0",
            fillstyle="full" if point.usable else "none",
            label=f"{point.number}: {point.label}".replace("$", r"\$"),
        )
        colour = "white" if point.usable else "black"
        panel.text(
            point.x, point.y, str(point.number), ha="center", va="center", fontsize=7, color=colour
        )
    panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize=7, frameon=False)
    panel.set_xlabel(chart.x_label)
    panel.set_ylabel(chart.y_label, parse_math=False)
    panel.grid(which="major", color="0.9")


def draw_bench(found: MethodBench, highlighted: str) -> Figure:
    """Draw one panel per text, with a legend below all of them."""
    recipes = list(dict.fromkeys(row.recipe for row in found.rows[1:]))
    columns = min(len(found.texts), PANELS_PER_ROW)
    lines = math.ceil(len(found.texts) / columns)
    keys_per_line = 3 * columns - 1
    legend = LEGEND_INCHES * math.ceil(len(recipes) / keys_per_line) + 0.3
    size = (PANEL_INCHES[0] * columns, PANEL_INCHES[1] * lines + legend)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).flat
    for panel, text in zip(panels, found.texts, strict=False):
        _draw_panel(panel, found, text.name, recipes, highlighted)
    for panel in list(panels)[len(found.texts) :]:
        panel.set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=keys_per_line,
        frameon=False,
        handlelength=3,
    )
    return figure


def _draw_panel(
    panel: Axes, found: MethodBench, text: str, recipes: list[str], highlighted: str
) -> None:
    perplexity = found.metric == "perplexity"
    for index, recipe in enumerate(recipes):
        thick = recipe == highlighted
        shares, losses = _curve(found, recipe, text)
        panel.plot(
            shares,
            losses,
            label=recipe,
            color="black" if thick else f"C{index % 10}",
            linewidth=3.0 if thick else 1.3,
            linestyle="-" if thick or index < 10 else "--",
            marker=MARKERS[index % len(MARKERS)],
            markersize=6 if thick else 5,
            zorder=3 if thick else 2,
        )
    if perplexity:
        panel.axhline(1.0, color="0.6", linewidth=1.0, linestyle=":", label="dense")
    panel.set_yscale("log")
    bottom, top = panel.get_ylim()
    ticks = WIDE_TICKS if top > WIDE * bottom else NARROW_TICKS
    panel.yaxis.set_major_locator(LogLocator(subs=ticks))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.yaxis.set_minor_formatter(NullFormatter())
    panel.set_title(text, parse_math=False)
    panel.set_xlabel("kept of the factorizable weights' bytes, %")
    panel.set_ylabel(LOSSES[found.metric])
    panel.grid(which="major", color="0.9")


def _curve(found: MethodBench, recipe: str, text: str) -> tuple[list[float], list[float]]:
    """Points of one recipe by share; a logarithmic axis has no place for 0 and below."""
    points = []
    for row in found.rows:
        figures = row.figures
        if row.recipe != recipe or figures is None:
            continue
        value = next(score for score in figures.scores if score.text == text)
        loss = value.ratio if found.metric == "perplexity" else 1 - value.value
        if math.isfinite(loss) and loss > 0:
            points.append((100 * figures.kept, loss))
    shares, losses = zip(*sorted(points), strict=True) if points else ((), ())
    return list(shares), list(losses)
