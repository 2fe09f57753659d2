"""Scatters of a sweep: one description, and as many drawings as there are forms."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure

from edgelr.report.charts import Scatter
from edgelr.report.pareto import Entry, Sweep
from edgelr.report.pareto_charts import device_charts, drawings
from edgelr.report.plot import draw_scatter, write_sweep_plot
from edgelr.report.svg import to_file

SVG = "{http://www.w3.org/2000/svg}"
MIB = 2**20


def entry(name: str, mib: int, value: float, **more: object) -> Entry:
    latency = (("prefill 32", mib / 40),)
    made = Entry("orin", name, "", mib * MIB, 2 * mib * MIB, True, value, 20.0, True, latency)
    return Entry(**{**{each: getattr(made, each) for each in made.__slots__}, **more})


@pytest.fixture
def found() -> Sweep:
    entries = (
        entry("dense float32", 40, 20.0),
        entry("edgelr int8, keep 0.5", 12, 21.0),
        entry("edgelr int4, $keep$ 0.3", 8, 26.0, passed=False),
        entry("edgelr float16", 10, 20.5, problem="no plan fits", profile="nano"),
        entry("dense int8", 14, 20.6, profile="nano"),
    )
    return Sweep(1, "now", "edgelr sweep", "m", "d", "perplexity", "text", (), {}, entries)


def test_a_point_stands_for_every_entry_that_has_figures(found: Sweep) -> None:
    loss = device_charts(found, "orin")["loss"]
    assert [(point.x, point.y) for point in loss.points] == [
        (40.0, 0.0),
        (12.0, pytest.approx(5.0)),
        (8.0, pytest.approx(30.0)),
    ]
    assert [point.rival for point in loss.points] == [True, False, False]
    assert [point.usable for point in loss.points] == [True, True, False]
    assert len(device_charts(found, "nano")["loss"].points) == 1
    assert list(drawings(found)) == [
        f"{device}-{name}"
        for device in ("orin", "nano")
        for name in ("loss", "memory", "time-prefill-32")
    ]


def test_a_page_and_a_plot_draw_the_points_of_one_description(found: Sweep) -> None:
    chart = device_charts(found, "orin")["loss"]
    assert isinstance(chart, Scatter)
    wanted = [f"{point.number}: {point.label}" for point in chart.points]
    page = ElementTree.fromstring(to_file(chart, "loss").encode())
    assert [each.text for each in page.findall(f"{SVG}g/{SVG}title")] == wanted
    panel = Figure().subplots()
    draw_scatter(panel, chart)
    legend = panel.get_legend()
    assert legend is not None
    told = [each.get_text().replace(r"\$", "$") for each in legend.get_texts()]
    assert told == wanted
    filled = [line.get_fillstyle() == "full" for line in panel.lines if line.get_marker() in "so"]
    assert filled == [point.usable for point in chart.points]


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_equal_sweeps_give_equal_plots(found: Sweep, suffix: str, tmp_path: Path) -> None:
    paths = [tmp_path / f"{index}.{suffix}" for index in range(2)]
    for path in paths:
        write_sweep_plot(found, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
