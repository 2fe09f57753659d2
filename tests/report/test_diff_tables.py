"""Tables of a diff: units as people read them, and the rest of a long list one option away."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from edgelr.report.diff import Diff, FigureChange, Side, SiteChange, WordChange, make_diff
from edgelr.report.diff_tables import SHOWN_SITES, figure_table, print_diff, site_table, word_table
from tests.helpers.reports import MIB, make_report, site

NOTHING = make_diff(*(Side("folder", make_report(), {}) for _ in range(2)))


def shown(found: Diff, every: bool = False) -> str:
    console = Console(file=io.StringIO(), width=100)
    print_diff(found, every, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("unit", "before", "after", "row"),
    [
        ("bytes", 90 * MIB, 73 * MIB, ("90.0 MiB", "73.0 MiB", "-18.9 %")),
        ("share", 0.5, 0.75, ("50.0 %", "75.0 %", "+50.0 %")),
        ("ms", 2.0, 2.0, ("2 ms", "2 ms", "")),
        ("", 0.0, 0.25, ("0", "0.25", "+0.25")),
        ("", None, 0.25, ("–", "0.25", "–")),
        ("", 0.25, None, ("0.25", "–", "–")),
        ("", None, None, ("–", "–", "")),
    ],
)
def test_a_change_is_relative_to_what_was_there(
    unit: str, before: float | None, after: float | None, row: tuple[str, ...]
) -> None:
    change = FigureChange("figure", unit, "counted", before, after)
    (found,) = figure_table(replace(NOTHING, figures=(change,))).rows
    assert found == ("figure", "counted", *row)


def test_a_linear_is_told_by_form_rank_and_precision() -> None:
    low_rank, dense = site("a", "low_rank", MIB, ""), site("a", "dense", 2 * MIB, "")
    rows = site_table((SiteChange("a", low_rank, dense, MIB), SiteChange("b", None, dense, 7))).rows
    assert rows == (
        ("a", "low_rank rank 7 float16", "dense float16", "+1,024.0"),
        ("b", "–", "dense float16", "+0.0"),
    )


def test_words_that_are_not_there_are_dashes() -> None:
    assert word_table((WordChange("a", "", "x"),)).rows == (("a", "–", "x"),)


def test_a_long_list_is_cut_and_says_so() -> None:
    sites = tuple(
        SiteChange(f"linear {index}", None, site("a", "dense", MIB, ""), MIB)
        for index in range(SHOWN_SITES + 3)
    )
    found = replace(NOTHING, sites=sites)
    assert "3 more changed less; --all shows them." in shown(found)
    assert f"linear {SHOWN_SITES + 2} " not in shown(found)
    assert f"linear {SHOWN_SITES + 2} " in shown(found, every=True)


def test_two_equal_bundles_have_no_tables_of_changes() -> None:
    text = shown(NOTHING)
    assert "3 of 3 linears are the same in both." in text
    assert not any(title in text for title in ("linears changed", "Settings", "Environment"))
