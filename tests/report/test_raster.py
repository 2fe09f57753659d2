"""Charts as PNG: every kind is drawn, larger ones are taller, and equal ones are equal bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from edgelr.report.charts import Bars, Chart, HeatMap, Point, Scatter, Waterfall
from edgelr.report.drawings import drawings
from edgelr.report.raster import write_png
from tests.helpers.reports import make_report, wide

POINT = Point(1, "a $ in a name", 3.0, 2.0, rival=False, usable=True, front=True)
CHARTS: dict[str, Chart] = {
    **{name: drawings(make_report())[name] for name in ("latency", "size", "budget", "ranks")},
    "points": Scatter("t", "d", "x", "y, %", (
        POINT, replace(POINT, number=2, x=5.0, y=1.0, rival=True, usable=False),
    )),
}  # fmt: skip


def height(chart: Chart, path: Path) -> int:
    write_png(chart, path)
    with Image.open(path) as image:
        return image.height


def test_every_kind_of_chart_is_among_those_that_are_drawn() -> None:
    assert {type(chart) for chart in CHARTS.values()} == {Bars, HeatMap, Waterfall, Scatter}


@pytest.mark.parametrize("name", ["latency", "budget", "ranks", "points"])
def test_a_chart_is_the_same_image_every_time(name: str, tmp_path: Path) -> None:
    for each in ("a", "b"):
        write_png(CHARTS[name], tmp_path / f"{each}.png")
    first, second = ((tmp_path / f"{each}.png").read_bytes() for each in "ab")
    assert first == second
    with Image.open(tmp_path / "a.png") as image:
        colours = image.convert("RGB").getcolors(1 << 20)
    assert colours is not None
    assert len(colours) > 20  # letters have soft edges: there are some


def test_more_rows_make_a_taller_image(tmp_path: Path) -> None:
    small, large = (drawings(each)["ranks"] for each in (make_report(), wide(make_report())))
    assert height(large, tmp_path / "a.png") > 1.5 * height(small, tmp_path / "b.png")


def test_what_was_predicted_is_hatched(tmp_path: Path) -> None:
    """A hatched bar covers less of its area than a filled one."""
    chart = CHARTS["size"]
    assert isinstance(chart, Bars)
    groups = tuple(
        replace(group, bars=tuple(replace(bar, predicted=True) for bar in group.bars))
        for group in chart.groups
    )
    shares = []
    for each in (chart, replace(chart, groups=groups)):
        write_png(each, tmp_path / "a.png")
        with Image.open(tmp_path / "a.png") as image:
            pixels = image.convert("L").histogram()
        shares.append(sum(pixels[:200]) / sum(pixels))
    assert shares[1] < 0.8 * shares[0]
