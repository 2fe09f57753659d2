"""Charts as SVG: bars as long as their figures, and files that stand alone."""

from __future__ import annotations

import dataclasses
from xml.etree import ElementTree

import pytest

from edgelr.core.report import Report
from edgelr.report.charts import Cell, HeatMap, Point, Scatter
from edgelr.report.drawings import drawings
from edgelr.report.svg import ticks, to_file
from tests.helpers.reports import make_report

ATTACK = "</script><script>alert('x')</script><img src=//evil.example onerror=alert(1)>\x00&\ud800"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def report() -> Report:
    return make_report()


def hostile(report: Report) -> Report:
    """Put markup wherever a model or a user has a say."""
    plan = dataclasses.replace(
        report.plan,
        sites=tuple(
            dataclasses.replace(each, name=f"{each.name}.{ATTACK}", reason=ATTACK, group=ATTACK)
            for each in report.plan.sites
        ),
        recipe=ATTACK,
    )
    assert report.validation is not None
    validation = dataclasses.replace(report.validation, text=ATTACK, notes=(ATTACK,))
    return dataclasses.replace(
        report, plan=plan, source=f"models/{ATTACK}", command=ATTACK, notes=(ATTACK,),
        profile_title=ATTACK, recipe=ATTACK, validation=validation, environment={ATTACK: ATTACK},
        spectra={each.name: (0.5,) * 9 for each in plan.sites},
    )  # fmt: skip


def test_every_drawing_is_a_file_of_its_own(report: Report) -> None:
    for name, chart in drawings(hostile(report)).items():
        root = ElementTree.fromstring(to_file(chart, name).encode())
        assert root.tag == f"{SVG}svg"
        assert root.find(f"{SVG}style") is not None
        assert not [each for each in root.iter() if each.tag in (f"{SVG}script", f"{SVG}img")]


def test_predicted_figures_are_hatched_and_named_and_measured_ones_are_not(
    report: Report,
) -> None:
    root = ElementTree.fromstring(to_file(drawings(report)["latency"], "latency").encode())
    bars = [each for each in root if each.get("class") in ("bar dense", "bar bundle")]
    hatched = [each for each in bars if "url(#latency-" in each.get("style", "")]
    assert (len(bars), len(hatched)) == (8, 4)
    labels = [each.text or "" for each in root.iter(f"{SVG}text")]
    assert sum("(PREDICTED)" in label for label in labels) == len(hatched)


def test_bars_are_as_long_as_their_figures(report: Report) -> None:
    root = ElementTree.fromstring(to_file(drawings(report)["size"], "size").encode())
    widths = [float(each.get("width", 0)) for each in root if each.get("class", "")[:3] == "bar"]
    dense, bundle = widths[:2]
    assert bundle / dense == pytest.approx(90 / 150, abs=1e-3)


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0, 0.032), (-0.2, 1.3), (0, 97.8), (0, 5400), (3, 1003)]
)
def test_axes_have_a_few_round_ticks(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 3 <= len(found) <= 8
    assert found == sorted(set(found))
    assert all(low <= value <= high for value in found)


def test_points_lie_where_their_axes_say() -> None:
    points = tuple(
        Point(index, f"{index}", 10.0 * index, y, False, True, index < 3)
        for index, y in ((1, 4.0), (2, 1.0), (4, 2.0))
    )
    root = ElementTree.fromstring(to_file(Scatter("t", "d", "x", "y", points), "s").encode())
    marks = [
        (float(each.get("cx", 0)), float(each.get("cy", 0))) for each in root.iter(f"{SVG}circle")
    ]
    (x1, y1), (x2, y2), (x4, y4) = marks
    assert (x4 - x2) / (x2 - x1) == pytest.approx(2, rel=0.01)
    assert (y2 - y1) / (y4 - y1) == pytest.approx(3 / 2, rel=0.01)
    (front,) = [
        each.get("d", "") for each in root.iter(f"{SVG}path") if each.get("class") == "front"
    ]
    assert front.count("L") == 1  # of two points


def test_a_map_is_as_strong_as_its_values() -> None:
    cells = (Cell(0.25, "25", "a quarter"), Cell(None), Cell(2.0, "200", "too much"))
    chart = HeatMap("t", "d", ("a", "b", "c"), (("0", cells),), "few", "all")
    root = ElementTree.fromstring(to_file(chart, "m").encode())
    fields = [group for group in root if group.tag == f"{SVG}g"]
    assert [group[0].text for group in fields] == ["a quarter", "too much"]
    assert [group[1].get("style") for group in fields] == [
        "fill-opacity:0.250",
        "fill-opacity:1.000",
    ]
