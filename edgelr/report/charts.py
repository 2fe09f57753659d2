"""Charts as plain values, which ``svg``, ``raster`` and ``plot`` draw.

A chart has a title, a description in words, and the text of each figure. Predicted figures are
marked, so that a drawing can tell them from the measured ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Bar:
    """One figure.

    Attributes:
        label: text before the bar.
        value: length, in the unit of the group.
        text: figure with its unit.
        kind: ``dense`` for the original, or ``bundle``.
        predicted: whether the figure was computed and not measured.
        high: 90th percentile of what was measured, where ``value`` is the median.
    """

    label: str
    value: float
    text: str
    kind: str
    predicted: bool = False
    high: float | None = None


@dataclass(frozen=True, slots=True)
class BarGroup:
    """Bars that are compared, on one scale; ``note`` is the origin of their figures."""

    title: str
    bars: tuple[Bar, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Bars:
    """Groups of bars, each with its own scale, or all with ``one_scale``."""

    title: str
    description: str
    groups: tuple[BarGroup, ...]
    one_scale: bool = False


@dataclass(frozen=True, slots=True)
class Cell:
    """One field of a heat map.

    Attributes:
        value: strength of the colour in [0, 1]; None leaves the field empty.
        text: figure in the field.
        description: sentence that is shown when the field is pointed at.
    """

    value: float | None
    text: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Rows of fields; ``low`` and ``high`` are the meanings of pale and strong colours."""

    title: str
    description: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    low: str
    high: str


@dataclass(frozen=True, slots=True)
class Step:
    """A part of a whole; ``start`` and ``end`` are in the unit of the chart."""

    label: str
    start: float
    end: float
    text: str
    kind: str
    predicted: bool = False


@dataclass(frozen=True, slots=True)
class Waterfall:
    """Parts that add up to ``total``, one below the other."""

    title: str
    description: str
    total: float
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Point:
    """A numbered point.

    Attributes:
        number: number in the mark.
        label: name and figures, for the legend.
        x, y: place, in the units of the axes.
        rival: whether it is the original in some precision: a square, not a circle.
        usable: whether it fits the device and passes the gate: filled.
        front: whether no other point is better in everything: joined by a line.
    """

    number: int
    label: str
    x: float
    y: float
    rival: bool
    usable: bool
    front: bool


@dataclass(frozen=True, slots=True)
class Scatter:
    """Points on two axes, both of which are better towards 0."""

    title: str
    description: str
    x_label: str
    y_label: str
    points: tuple[Point, ...]


Chart: TypeAlias = Bars | HeatMap | Waterfall | Scatter
