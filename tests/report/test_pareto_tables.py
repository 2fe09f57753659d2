"""Tables of a sweep: a verdict in every row, and a sentence for every device."""

from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

from edgelr.report.pareto_tables import (
    device_table,
    facts,
    print_sweep,
    problems,
    recommendation,
    to_markdown,
)
from tests.helpers.comparisons import MIB, entry, make_sweep


def test_every_row_has_a_verdict_and_the_front_a_star() -> None:
    found = make_sweep(
        *make_sweep().entries,
        entry("jetson", "worse", 70, 22.0, latency=(("decode 64", 0.8),)),
    )
    table = device_table(found, "jetson")
    assert table.columns == (
        "bundle", "file MiB", "memory MiB", "perplexity", "loss", "decode 64", "verdict",
    )  # fmt: skip
    assert [(row[0], row[-1]) for row in table.rows] == [
        ("edgelr, keep 0.5 *", "ship"),
        ("edgelr, keep 0.7 *", ""),
        ("dense int8 *", "too large"),
        ("dense float32 *", ""),
        ("worse", ""),
    ]
    assert table.rows[0][1:6] == ("40.0", "80.0", "23", "15.0 %", "0.500")
    assert table.rows[2][5] == "–"
    assert device_table(found, "pi").rows[0][-1] == "gate failed"


def test_a_recommendation_is_set_against_the_largest_rival() -> None:
    found = make_sweep()
    assert recommendation(found, "jetson") == (
        "jetson: ship edgelr, keep 0.5 (40.0 MiB, 40.0 % of the original; perplexity 23, "
        "originally 20)."
    )
    alone = entry("jetson", "edgelr", 40, 23.0, original_bytes=200 * MIB)
    assert "20.0 % of the original" in recommendation(make_sweep(alone), "jetson")
    unknown = replace(alone, original_bytes=0)
    assert "of the original" not in recommendation(make_sweep(unknown), "jetson")
    assert recommendation(found, "pi") == "pi: nothing here fits the device and passes its gate."


def test_problems_are_lines_and_facts_name_what_figures_depend_on() -> None:
    found = make_sweep()
    assert problems(found, "pi") == ["edgelr, keep 0.1: nothing fits"]
    assert problems(found, "jetson") == []
    told = facts(found)
    assert "accuracy on: a text" in told
    assert "calibrated on: self" in told
    assert told[-1] == "created: 2031-05-06; weights: `sha256:abc`"
    assert facts(replace(found, calibration=()), quote="")[-1].endswith("weights: sha256:abc")


def test_the_page_has_every_device_and_its_plot() -> None:
    text = to_markdown(make_sweep())
    assert text.startswith("# tiny on jetson, pi\n\n- **jetson: ship")
    assert text.index("## jetson") < text.index("## pi") < text.index("- edgelr, keep 0.1")
    assert "![](sweep.svg)" in text
    assert "![](" not in to_markdown(make_sweep(), plot="")


def test_the_terminal_ends_with_what_to_ship() -> None:
    console = Console(file=io.StringIO(), width=100)
    print_sweep(make_sweep(), console)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert lines[-1] == recommendation(make_sweep(), "pi")
    assert "- edgelr, keep 0.1: nothing fits" in lines
    assert max(map(len, lines)) <= 100
