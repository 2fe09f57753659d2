"""What is drawn of a report: plain values, for every kind of drawing.

A chart knows its title, what it shows in words, and the text of each figure. Predicted figures are
marked, so that a drawing can tell them from the measured ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Bar:
    """One figure; ``high`` is the end of its spread, where it has one.

    ``kind`` tells what it is of: the ``dense`` original, or the ``bundle``.
    """

    label: str
    value: float
    text: str
    kind: str
    predicted: bool = False
    high: float | None = None


@dataclass(frozen=True, slots=True)
class BarGroup:
    """Bars that are compared: they have one scale. ``note`` says where the figures are from."""

    title: str
    bars: tuple[Bar, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Bars:
    """Groups of bars. With ``one_scale`` all groups share it."""

    title: str
    description: str
    groups: tuple[BarGroup, ...]
    one_scale: bool = False


@dataclass(frozen=True, slots=True)
class Cell:
    """One field: ``value`` in [0, 1], or None where there is nothing; ``told`` is its sentence."""

    value: float | None
    text: str = ""
    told: str = ""


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Rows of fields; ``low`` and ``high`` say what pale and strong colours mean."""

    title: str
    description: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    low: str
    high: str


@dataclass(frozen=True, slots=True)
class Step:
    """A part of a whole: where it starts and ends, both in the unit of the chart."""

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
    """A numbered point; ``usable`` ones are filled, those of the ``front`` are joined."""

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
