"""Tables of recipes: the best is bold, problems are told, and the next command is one to run."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from edgelr.core.tasks import MetricName
from edgelr.report.comparison_tables import (
    BOLD,
    dense_sentence,
    keep_table,
    next_command,
    print_bench,
    row_sentence,
    to_markdown,
)
from tests.helpers.comparisons import make_bench


@pytest.mark.parametrize("metric", ["perplexity", "mean_cosine"])
def test_the_best_of_every_text_is_bold_with_its_ratio(metric: MetricName) -> None:
    first, second = keep_table(make_bench(metric), 0.5).rows
    per_text = 2 if metric == "perplexity" else 1
    ours, theirs = slice(3, 3 + per_text), slice(3 + per_text, 3 + 2 * per_text)
    assert all(cell.startswith(BOLD) for cell in (*second[ours], *first[theirs]))
    assert not any(BOLD in cell for cell in (*first[ours], *second[theirs], *first[:3]))


@pytest.mark.parametrize("metric", ["perplexity", "mean_cosine"])
def test_a_row_that_could_not_be_made_has_dashes_and_its_reason(metric: MetricName) -> None:
    found = make_bench(metric)
    table = keep_table(found, 0.9)
    assert {len(row) for row in table.rows} == {len(table.columns)}
    assert set(table.rows[1][1:]) == {"–"}
    assert "- second: the budget is too small" in to_markdown(found)
    assert row_sentence(found.rows[-1]) == "second, keep 0.9: the budget is too small"


def test_the_page_has_every_share_and_how_it_was_made() -> None:
    text = to_markdown(make_bench())
    for said in (
        "# Methods on tiny", "## keep 0.5", "## keep 0.9", "```bash\nedgelr bench methods m",
        "machine: EPYC", "versions: torch 2.13", "ours: 1,024 tokens in 8 rows of ours.txt",
        "first, keep 0.5: first was healed.", dense_sentence(make_bench()),
    ):  # fmt: skip
        assert said in text


def test_a_row_is_told_in_a_sentence() -> None:
    dense, first, *_ = make_bench().rows
    assert row_sentence(dense) == "dense: 100.0 % kept, ours 20 (1.000), theirs 20 (1.000)"
    assert row_sentence(first) == "first, keep 0.5: 50.0 % kept, ours 44 (2.200), theirs 22 (1.100)"


def test_the_winner_is_what_is_exported_next() -> None:
    found = make_bench()
    assert next_command(found, "my board.yaml") == (
        "edgelr export /models/tiny --profile 'my board.yaml' --recipe second --keep 0.5"
    )
    failed = [replace(row, figures=None) if row.keep else row for row in found.rows]
    assert "larger shares" in next_command(replace(found, rows=tuple(failed)), "jetson")


def test_figures_stay_whole_in_a_narrow_terminal() -> None:
    console = Console(file=io.StringIO(), width=40)
    print_bench(make_bench(), console)
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert "**" not in shown
    row = next(line.split() for line in shown.splitlines() if "second" in line)
    assert row[:5] == ["second", "50.0", "%", "20.0", "22"]
