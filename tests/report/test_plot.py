"""Curves and points as files: equal figures give equal bytes, and nothing undrawable stops them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.lines import Line2D

from edgelr.core.tasks import MetricName
from edgelr.report.plot import draw_bench, write_plot, write_sweep_plot
from tests.helpers.comparisons import TEXTS, make_bench, make_sweep


def curves(metric: MetricName) -> list[dict[str, Line2D]]:
    """The curves of every panel, by the names of their recipes."""
    figure = draw_bench(make_bench(metric), "first")
    return [
        {str(line.get_label()): line for line in panel.get_lines()}
        for panel in figure.axes
        if panel.get_visible()
    ]


def test_every_text_has_a_panel_with_a_curve_for_every_recipe() -> None:
    panels = curves("perplexity")
    assert len(panels) == len(TEXTS)
    assert [list(panel) for panel in panels] == [["first", "second", "dense"]] * 2
    ours, theirs = panels
    assert list(ours["first"].get_xdata()) == [50, 90]
    assert list(ours["first"].get_ydata()) == [2.2, 1.1]
    assert list(theirs["second"].get_ydata()) == []  # it is undefined there, and failed at 0.9


def test_a_cosine_is_drawn_as_its_distance_from_one() -> None:
    ours, _ = curves("mean_cosine")
    assert list(ours["first"].get_ydata()) == pytest.approx([0.5, 0.1])
    assert "dense" not in ours


def test_the_highlighted_recipe_is_the_thickest() -> None:
    ours, _ = curves("perplexity")
    assert ours["first"].get_linewidth() > ours["second"].get_linewidth()


def test_equal_figures_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_plot(make_bench(), "first", tmp_path / f"{name}.svg")
        write_sweep_plot(make_sweep(), tmp_path / f"{name}.png")
    for suffix in (".svg", ".png"):
        first, second = ((tmp_path / f"{name}{suffix}").read_bytes() for name in "ab")
        assert first == second
        assert b"<dc:date>" not in first


def test_names_are_no_formulas(tmp_path: Path) -> None:
    """A dollar sign in a file name would begin one, and an unknown one is an error."""
    found = make_bench()
    texts = tuple(replace(each, name="$\\nothing$") for each in found.texts)
    rows = tuple(
        row if row.figures is None else replace(row, figures=replace(row.figures, scores=tuple(
            replace(score, text="$\\nothing$") for score in row.figures.scores
        )))
        for row in found.rows
    )  # fmt: skip
    write_plot(replace(found, texts=texts, rows=rows), "first", tmp_path / "bench.svg")
    entries = tuple(replace(each, name="$\\nothing$") for each in make_sweep().entries)
    write_sweep_plot(make_sweep(*entries), tmp_path / "sweep.svg")


def test_devices_without_figures_have_empty_panels(tmp_path: Path) -> None:
    failed = [replace(each, problem="no", value=math.nan) for each in make_sweep().entries]
    write_sweep_plot(make_sweep(*failed), tmp_path / "sweep.svg")
    assert (tmp_path / "sweep.svg").stat().st_size > 1000
