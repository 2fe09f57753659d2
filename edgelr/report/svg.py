"""Charts as SVG, small enough to be part of a page and complete enough to be a file.

A chart is about as wide as a phone, so that its letters need no scaling. Colours are variables of a
style sheet, which knows light and dark; figures that were predicted are hatched.
"""

from __future__ import annotations

import math
from importlib.resources import files

from edgelr.report.charts import (
    BarGroup,
    Bars,
    Cell,
    Chart,
    HeatMap,
    Point,
    Scatter,
    Step,
    Waterfall,
)
from edgelr.report.markup import Markup, element

WIDTH = 360
LINE = 15  # height of a line of text
BAR = 9
LETTER = 6.2  # average width of a letter of 11 pixels
STRONG = 0.66  # of a colour, from which on the letters on it are those for strong colours
CELL_HEIGHT, SMALL_CELL_HEIGHT = 17, 9
SMALL_CELL = 21.0  # width of a field without a figure
PLOT = (46, 14, 300, 210)  # left, top, width and height of the area of a scatter


def draw(chart: Chart, name: str) -> Markup:
    """Draw a chart; ``name`` is unique in its document."""
    if isinstance(chart, Bars):
        width, height, parts = _bars(chart, name)
    elif isinstance(chart, HeatMap):
        width, height, parts = _heat_map(chart)
    elif isinstance(chart, Waterfall):
        width, height, parts = _waterfall(chart, name)
    else:
        width, height, parts = _scatter(chart)
    return element(
        "svg",
        element("title", chart.title, id=f"{name}-title"),
        element("desc", chart.description, id=f"{name}-desc"),
        _hatches(name),
        *parts,
        xmlns="http://www.w3.org/2000/svg",
        class_="chart",
        role="img",
        aria_labelledby=f"{name}-title {name}-desc",
        viewBox=f"0 0 {width:g} {height:g}",
        width=width,
        height=height,
    )


def to_file(chart: Chart, name: str) -> str:
    """Draw a chart as a file of its own, with its title above it."""
    drawn = draw(chart, name)
    style = element("style", Markup(style_sheet("chart.css")))
    head, body = drawn.split(">", 1)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{head}>{style}{body}\n'


def style_sheet(name: str) -> str:
    """Read a style sheet or a script that goes into a page."""
    return files("edgelr.report").joinpath("assets", name).read_text(encoding="utf-8")


# --- bars ----------------------------------------------------------------------------------------


def _bars(chart: Bars, name: str) -> tuple[float, float, list[Markup]]:
    parts, y = [], 0.0
    widest = max((_reach(group) for group in chart.groups), default=1.0)
    for group in chart.groups:
        scale = WIDTH / (widest if chart.one_scale else _reach(group))
        parts.append(_text(0, y + 12, group.title, "heading"))
        y += LINE + 2
        if group.note:
            parts.append(_text(0, y + 9, group.note, "small dim"))
            y += LINE - 1
        for bar in group.bars:
            label = f"{bar.label} (PREDICTED)" if bar.predicted else bar.label
            parts.append(_text(0, y + 10, label))
            parts.append(_text(WIDTH, y + 10, bar.text, "value", text_anchor="end"))
            y += LINE
            width = max(1.0, scale * bar.value)
            parts.append(_block(0, y, width, bar.kind, name if bar.predicted else None))
            if bar.high is not None and bar.high > bar.value:
                parts.append(_whisker(width, scale * bar.high, y))
            y += BAR + 6
        y += 8
    return WIDTH, y, parts


def _reach(group: BarGroup) -> float:
    return max((max(bar.value, bar.high or 0.0) for bar in group.bars), default=0.0) or 1.0


def _whisker(start: float, end: float, y: float) -> Markup:
    middle, tall = y + BAR / 2, BAR / 2
    line = f"M{start:.1f} {middle:.1f}H{end:.1f}M{end:.1f} {middle - tall:.1f}v{2 * tall:.1f}"
    return element("path", d=line, class_="whisker")


def _block(x: float, y: float, width: float, kind: str, hatched: str | None) -> Markup:
    """Draw a bar; ``hatched`` is the name of the chart whose hatch it gets."""
    places = {"x": round(x, 1), "y": round(y, 1), "width": round(width, 1), "height": BAR}
    style = f"fill:url(#{hatched}-{kind})" if hatched else None
    return element("rect", **places, rx=2, class_=f"bar {kind}", style=style)


def _hatches(name: str) -> Markup:
    """Define the fillings of predicted bars."""
    kinds = ("dense", "bundle", "used", "free", "over")
    return element("defs", (_hatch(name, kind) for kind in kinds))


def _hatch(name: str, kind: str) -> Markup:
    return element(
        "pattern",
        element("rect", width=5, height=5, class_=f"pale {kind}"),
        element("rect", width=2, height=5, class_=f"bar {kind}"),
        id=f"{name}-{kind}",
        width=5,
        height=5,
        patternUnits="userSpaceOnUse",
        patternTransform="rotate(45)",
    )


# --- parts of a whole ----------------------------------------------------------------------------


def _waterfall(chart: Waterfall, name: str) -> tuple[float, float, list[Markup]]:
    scale = WIDTH / max([chart.total, *(step.end for step in chart.steps), 1.0])
    parts, y = [], 0.0
    for step in chart.steps:
        parts += _step(step, y, scale, name)
        y += LINE + BAR + 8
    end = scale * chart.total
    parts.append(element("path", d=f"M{end:.1f} 0V{y:.1f}", class_="limit"))
    return WIDTH, y, parts


def _step(step: Step, y: float, scale: float, name: str) -> list[Markup]:
    width = max(1.0, scale * (step.end - step.start))
    left = min(scale * step.start, WIDTH - width)
    label = f"{step.label} (PREDICTED)" if step.predicted else step.label
    return [
        _text(0, y + 11, label),
        _text(WIDTH - 4, y + 11, step.text, "value", text_anchor="end"),
        _block(left, y + LINE, width, step.kind, name if step.predicted else None),
    ]


# --- heat maps -----------------------------------------------------------------------------------


def _heat_map(chart: HeatMap) -> tuple[float, float, list[Markup]]:
    told = any(cell.text for _, cells in chart.rows for cell in cells)
    left = max([LETTER * len(label) for label, _ in chart.rows] + [10.0]) + 6
    longest = LETTER * max((len(column) for column in chart.columns), default=0)
    top = 0.62 * longest + 14 if told else 16.0
    lean = 0.75 * longest if told else 6.0  # how far the last label leans out to the right
    width = (WIDTH - left - lean) / max(1, len(chart.columns))
    width = min(46.0, max(30.0, width)) if told else SMALL_CELL
    height = CELL_HEIGHT if told else SMALL_CELL_HEIGHT
    parts = [
        _leaning(left + (index + 0.45) * width, top - 5, column, told)
        for index, column in enumerate(chart.columns)
    ]
    for row, (label, cells) in enumerate(chart.rows):
        y = top + row * height
        if told or row % 5 == 0 or len(chart.rows) < 8:
            parts.append(_text(left - 5, y + height - 3.5, label, "small", text_anchor="end"))
        for index, cell in enumerate(cells):
            parts += _cell(left + index * width, y, width, height, cell)
    bottom = top + len(chart.rows) * height
    total = max(left + len(chart.columns) * width + lean, 170.0)
    return total, bottom + 24, [*parts, *_scale(chart, left, bottom + 10)]


def _leaning(x: float, y: float, label: str, told: bool) -> Markup:
    if not told:
        return _text(x, y, label, "small", text_anchor="middle")
    return _text(x, y, label, "small", transform=f"rotate(-40 {x:.1f} {y:.1f})")


def _cell(x: float, y: float, width: float, height: float, cell: Cell) -> list[Markup]:
    if cell.value is None:
        return []
    shade = f"fill-opacity:{min(1.0, max(0.0, cell.value)):.3f}"
    place = {"x": round(x, 1), "y": round(y, 1), "width": round(width, 1), "height": height}
    field = element("rect", **place, class_="cell", style=shade)
    if not cell.text:
        return [element("g", element("title", cell.description), field)]
    letters = "small strong" if cell.value >= STRONG else "small"
    told = _text(x + width / 2, y + height - 5, cell.text, letters, text_anchor="middle")
    return [element("g", element("title", cell.description), field, told)]


def _scale(chart: HeatMap, x: float, y: float) -> list[Markup]:
    """Draw the scale of the colours, below the fields."""
    start = x + LETTER * len(chart.low)
    steps = [
        element("rect", x=start + 6 * step, y=y, width=6, height=8, class_="cell", style=shade)
        for step, shade in enumerate(f"fill-opacity:{part / 8:.3f}" for part in range(9))
    ]
    low = _text(start - 4, y + 8, chart.low, "small", text_anchor="end")
    return [low, *steps, _text(start + 58, y + 8, chart.high, "small")]


# --- points --------------------------------------------------------------------------------------


def _scatter(chart: Scatter) -> tuple[float, float, list[Markup]]:
    left, top, width, height = PLOT
    x_top = 1.08 * max([point.x for point in chart.points] + [1e-9])
    low = min([point.y for point in chart.points] + [0.0])
    y_top = max([point.y for point in chart.points] + [low + 1e-9])
    margin = 0.08 * (y_top - low)
    low, y_top = (low - margin if low < 0 else 0.0), y_top + margin

    def place(point: Point) -> tuple[float, float]:
        share = (point.y - low) / (y_top - low)
        return left + width * point.x / x_top, top + height * (1 - share)

    parts = [*_axes(chart, x_top, low, y_top)]
    front = sorted((place(point) for point in chart.points if point.front), key=lambda at: at[0])
    if len(front) > 1:
        line = "L".join(f"{x:.1f} {y:.1f}" for x, y in front)
        parts.append(element("path", d=f"M{line}", class_="front"))
    for point in chart.points:
        parts.append(_point(point, *place(point)))
    return WIDTH, top + height + 36, parts


def _axes(chart: Scatter, x_top: float, low: float, y_top: float) -> list[Markup]:
    left, top, width, height = PLOT
    bottom = top + height
    parts = [element("path", d=f"M{left} {top}V{bottom}H{left + width}", class_="axis")]
    for value in ticks(0.0, x_top):
        x = left + width * value / x_top
        parts.append(element("path", d=f"M{x:.1f} {top}V{bottom}", class_="grid"))
        parts.append(_text(x, bottom + 13, f"{value:g}", "small", text_anchor="middle"))
    for value in ticks(low, y_top):
        y = top + height * (1 - (value - low) / (y_top - low))
        parts.append(element("path", d=f"M{left} {y:.1f}H{left + width}", class_="grid"))
        parts.append(_text(left - 5, y + 4, f"{value:g}", "small", text_anchor="end"))
    middle = left + width / 2
    parts.append(_text(middle, bottom + 30, chart.x_label, text_anchor="middle"))
    parts.append(_text(0, 10, chart.y_label))
    return parts


def ticks(low: float, high: float) -> list[float]:
    """List three to seven round values between two ends."""
    power = 10.0 ** math.floor(math.log10(high - low))
    step = next(each * power for each in (0.2, 0.5, 1.0, 2.0) if (high - low) / (each * power) < 7)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [round(index * step, 10) for index in range(first, last + 1)]


def _point(point: Point, x: float, y: float) -> Markup:
    kind = f"point {'rival' if point.rival else 'ours'}{'' if point.usable else ' hollow'}"
    size = 8.0
    if point.rival:
        mark = element("rect", x=x - size, y=y - size, width=2 * size, height=2 * size, class_=kind)
    else:
        mark = element("circle", cx=x, cy=y, r=size + 0.5, class_=kind)
    letters = "small strong" if point.usable else "small"
    number = _text(x, y + 3.5, str(point.number), letters, text_anchor="middle")
    return element("g", element("title", f"{point.number}: {point.label}"), mark, number)


def _text(x: float, y: float, value: str, class_: str | None = None, **more: str) -> Markup:
    return element("text", value, x=round(x, 1), y=round(y, 1), class_=class_, **more)
