"""Parts of a page: figures are aligned and sorted as figures, and words as words."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from edgelr.report.figures import Table, Verdict
from edgelr.report.markup import Markup
from edgelr.report.page import (
    FIGURE,
    bullets,
    code,
    drawn_table,
    facts,
    page,
    paragraph,
    verdict_list,
)

TABLE = Table(
    ("name", "size", "told"),
    (("a.long_name", "1.5", "yes"), ("b", "–", "3"), ("all", "2,001.5 %", "no")),
)


def parsed(made: Markup) -> ElementTree.Element:
    return ElementTree.fromstring(made.replace("<wbr>", "<wbr/>"))


@pytest.mark.parametrize(
    "cell", ["0", "-3", "1,234.5", "98.5 / 101.5 / 102.5", "57.5 %", "7 of 8", "1e-06", ".5"]
)
def test_what_reads_like_a_figure_is_one(cell: str) -> None:
    assert FIGURE.fullmatch(cell)


@pytest.mark.parametrize("cell", ["", "int8", "dense", "1.5 MiB", "3 in 4 parts", "low_rank"])
def test_what_has_words_is_none(cell: str) -> None:
    assert not FIGURE.fullmatch(cell)


def test_a_column_of_figures_is_aligned_as_such() -> None:
    table = parsed(drawn_table(TABLE, "caption"))
    heads = [head.get("class") for head in table.iter("th") if head.get("scope") == "col"]
    assert heads == [None, "figure", None]
    cells = [cell.get("class") for cell in table.iter("td")]
    assert cells == ["figure", None] * 3


def test_a_total_is_a_foot_and_headings_are_buttons_where_they_sort() -> None:
    sorted_, fixed = (
        parsed(drawn_table(TABLE, "c", sortable=sortable, total=True)) for sortable in (True, False)
    )
    assert len(list(sorted_.iter("button"))) == 3
    assert not list(fixed.iter("button"))
    for table in (sorted_, fixed):
        (foot,), (body,) = list(table.iter("tfoot")), list(table.iter("tbody"))
        assert "".join(foot.itertext()).startswith("all")
        assert len(body) == 2


def test_a_table_is_called_what_its_caption_says() -> None:
    region = parsed(drawn_table(TABLE, Markup("Sizes <span>measured</span>")))
    assert (region.get("role"), region.get("aria-label")) == ("region", "Sizes measured")


def test_long_names_may_break_where_their_parts_end() -> None:
    assert "a.<wbr>long_<wbr>name" in drawn_table(TABLE, "c")


def test_verdicts_have_a_word_for_those_who_see_no_colours() -> None:
    found = verdict_list([Verdict(True, "a"), Verdict(False, "b"), Verdict(None, "c")])
    labels = [each.get("aria-label") for each in parsed(found).iter("span") if each.get("role")]
    assert labels == ["yes", "no", "not known"]


def test_commands_facts_and_sentences_are_escaped() -> None:
    hostile = "<script>&"
    for made in (code(hostile), facts({hostile: hostile}), bullets([hostile]), paragraph(hostile)):
        assert "<script>" not in made
        assert hostile in "".join(parsed(made).itertext())
    assert bullets([]) == paragraph("") == ""


def test_every_section_has_a_link() -> None:
    text = page("title", "told", [("a", "First", paragraph("x")), ("b", "Second", paragraph("y"))])
    assert text.startswith("<!DOCTYPE html>")
    for id_, heading in (("a", "First"), ("b", "Second")):
        assert f'<a href="#{id_}">{heading}</a>' in text
        assert f'<section id="{id_}" aria-labelledby="{id_}-heading">' in text
