"""A sweep as one page: points are numbered as the rows of the table beside them."""

from __future__ import annotations

from dataclasses import replace

from edgelr.report.charts import Scatter
from edgelr.report.pareto_charts import drawings
from edgelr.report.pareto_html import to_html
from edgelr.report.svg import to_file
from tests.helpers.comparisons import MIB, entry, make_sweep
from tests.report.test_html import ATTACK, Elements


def scatter(name: str) -> Scatter:
    chart = drawings(make_sweep())[name]
    assert isinstance(chart, Scatter)
    return chart


def test_every_device_has_a_chart_for_accuracy_memory_and_each_phase() -> None:
    assert list(drawings(make_sweep())) == [
        "jetson-loss", "jetson-memory", "jetson-time-decode-64", "pi-loss", "pi-memory",
    ]  # fmt: skip


def test_points_are_the_entries_by_their_numbers() -> None:
    found = make_sweep()
    for point, each in zip(scatter("jetson-loss").points, found.at("jetson"), strict=True):
        assert point.number == found.at("jetson").index(each) + 1
        assert (point.x, point.y) == (each.file_bytes / MIB, 100 * each.loss)
        assert point.rival == each.name.startswith("dense")
        assert point.usable == (each.fits and each.passed)
    assert [point.y for point in scatter("jetson-memory").points] == [80, 120, 100, 200]


def test_what_was_not_timed_has_no_point_and_keeps_the_numbers_of_others() -> None:
    assert [point.number for point in scatter("jetson-time-decode-64").points] == [1, 2, 4]


def test_the_page_says_what_to_ship_and_numbers_its_rows() -> None:
    page = Elements(to_html(make_sweep()))
    assert "6 bundles and rivals beside each other" in page.text
    assert "jetson: ship edgelr, keep 0.5" in page.text
    assert "edgelr, keep 0.1: nothing fits" in page.text
    for number, each in enumerate(make_sweep().at("jetson"), 1):
        assert f"{number}. {each.name}" in page.text
    assert len(page.named("svg")) == 5
    identities = [found["id"] for _, found in page.found if "id" in found]
    assert len(identities) == len(set(identities))


def test_names_of_bundles_and_devices_are_never_run() -> None:
    hostile = replace(
        make_sweep(entry(ATTACK, ATTACK, 40, 23.0, latency=((ATTACK, 0.5),))),
        source=ATTACK, command=ATTACK, text=ATTACK, metric=ATTACK,
    )  # fmt: skip
    page = Elements(to_html(hostile))
    assert len(page.named("script")) == 1
    assert page.named("img") == []
    for name, chart in drawings(hostile).items():
        assert "<img" not in to_file(chart, name)
