"""Pages that are one file: style, script and drawings are inside, and nothing is loaded.

The policy in the head lets a browser run the one script of the page, and load nothing at all.
"""

from __future__ import annotations

import base64
import hashlib
import re

from edgelr.report.charts import Chart
from edgelr.report.figures import NOT_MEASURED, Table, Verdict
from edgelr.report.markup import Child, Markup, element, joined, text
from edgelr.report.svg import draw, style_sheet

MARKS = {True: ("good", "✓", "yes"), False: ("bad", "✗", "no"), None: ("open", "–", "not known")}
MEASURED, PREDICTED = "measured", "predicted"
NUMBER = r"-?[\d,]*\.?\d+(?:e[+-]?\d+)?"
NO_FIGURE = ("–", NOT_MEASURED)
FIGURE = re.compile(rf"{NUMBER}(?: %| of {NUMBER}|(?: / {NUMBER})+)?")


def page(title: str, told: str, sections: list[tuple[str, str, Markup]]) -> str:
    """Write a page of ``(id, heading, content)``, with links to each of them."""
    links = (element("li", element("a", heading, href=f"#{id_}")) for id_, heading, _ in sections)
    body = element(
        "body",
        element("a", "Skip to the report", href="#main", class_="skip"),
        element("header", element("h1", title), element("p", told, class_="told")),
        element("nav", element("ul", links), aria_label="Sections"),
        element("main", (_section(*section) for section in sections), id="main"),
        element("script", Markup(style_sheet("page.js"))),
    )
    return f"<!DOCTYPE html>\n{element('html', _head(title), body, lang='en')}\n"


def _head(title: str) -> Markup:
    script = hashlib.sha256(style_sheet("page.js").encode()).digest()
    allowed = f"'sha256-{base64.b64encode(script).decode()}'"
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src {allowed}; base-uri 'none'"
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Markup(style_sheet("chart.css") + style_sheet("page.css"))),
    )


def _section(id_: str, heading: str, content: Markup) -> Markup:
    return element(
        "section",
        element("h2", heading, id=f"{id_}-heading"),
        content,
        id=id_,
        aria_labelledby=f"{id_}-heading",
    )


def verdict_list(verdicts: list[Verdict]) -> Markup:
    """Show verdicts, each with a word for those who see no colours."""
    items = []
    for verdict in verdicts:
        kind, mark, word = MARKS[verdict.good]
        label = element("span", mark, class_="mark", role="img", aria_label=word)
        items.append(element("li", label, element("span", verdict.text), class_=kind))
    return element("ul", items, class_="verdicts")


def drawn(chart: Chart, name: str, note: Child = "") -> Markup:
    """Show a chart under its title."""
    caption = element("figcaption", element("strong", chart.title), element("span", note))
    box = element("div", draw(chart, name), class_="canvas")
    return element("figure", caption, box, id=f"figure-{name}")


def drawn_table(
    table: Table, caption: Child, *, sortable: bool = True, total: bool = False, tall: bool = False
) -> Markup:
    """Show a table.

    Args:
        table: columns and rows.
        caption: title of the table.
        sortable: whether its headings sort it, with mouse or keyboard.
        total: whether its last row is the sum of the others, and stays there.
        tall: whether it scrolls on its own.
    """
    numeric = [
        index
        for index in range(1, len(table.columns))
        if all(FIGURE.fullmatch(row[index]) or row[index] in NO_FIGURE for row in table.rows)
    ]
    rows = [_row(row, numeric) for row in table.rows]
    columns = (_heading(name, i in numeric, sortable) for i, name in enumerate(table.columns))
    drawn = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", columns)),
        element("tbody", rows[:-1] if total else rows),
        element("tfoot", rows[-1]) if total else "",
        class_="sortable" if sortable else None,
    )
    label = re.sub("<[^>]*>", "", joined(caption))
    kind = "scroll tall" if tall else "scroll"
    return element("div", drawn, class_=kind, tabindex=0, role="region", aria_label=Markup(label))


def _heading(column: str, numeric: bool, sortable: bool) -> Markup:
    told = element("button", column, type="button") if sortable else column
    return element(
        "th",
        told,
        scope="col",
        class_="figure" if numeric else None,
        aria_sort="none" if sortable else None,
    )


def _row(row: tuple[str, ...], numeric: list[int]) -> Markup:
    label, *cells = row
    return element(
        "tr",
        element("th", _breakable(label), scope="row"),
        (
            element("td", cell, class_="figure" if index in numeric else None)
            for index, cell in enumerate(cells, 1)
        ),
    )


def _breakable(name: str) -> Markup:
    """Let a long name break into lines where its parts end."""
    parts = re.split(r"(?<=[./_])(?=\S)", name)
    return Markup("<wbr>".join(text(part) for part in parts))


def badge(kind: str) -> Markup:
    """Say that figures are measured, or that they are predicted."""
    return element("span", kind, class_=f"badge {kind}")


def code(command: str) -> Markup:
    """Show a command with a button that copies it."""
    button = element("button", "Copy", type="button", class_="copy")
    return element(
        "div", element("pre", element("code", command), tabindex=0), button, class_="command"
    )


def bullets(lines: list[str]) -> Markup:
    """List sentences."""
    return element("ul", (element("li", line) for line in lines)) if lines else Markup("")


def facts(pairs: dict[str, str]) -> Markup:
    """List names and their values."""
    return element(
        "dl", (joined(element("dt", k), element("dd", v)) for k, v in pairs.items()), class_="facts"
    )


def paragraph(*children: Child) -> Markup:
    """Write a paragraph; nothing where it would be empty."""
    told = joined(*children)
    return element("p", told) if told else Markup("")
