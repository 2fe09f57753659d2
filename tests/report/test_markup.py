"""Markup: what comes from outside is text, and stays text."""

from __future__ import annotations

from xml.etree import ElementTree

from edgelr.report.markup import Markup, element, joined, text

ATTACK = "</script><script>alert('x')</script><img src=//evil.example onerror=alert(1)>\x00&\ud800"
SVG = "{http://www.w3.org/2000/svg}"


def test_attributes_and_children_are_escaped_and_markup_is_not() -> None:
    made = element("p", "<&\"'", element("b", "x"), title='"><script>', class_="a", hidden=False)
    assert made == '<p title="&quot;&gt;&lt;script&gt;" class="a">&lt;&amp;&quot;&#x27;<b>x</b></p>'
    assert isinstance(made, Markup)


def test_attributes_may_be_left_out_or_have_no_value() -> None:
    made = element("input", for_="a", aria_label="b", checked=True, disabled=None, size=0.1 + 0.2)
    assert made == '<input for="a" aria-label="b" checked="" size="0.3"/>'


def test_children_may_be_lists_of_markup_and_text() -> None:
    parts = (element("li", each) for each in ("a&b", "c"))
    assert joined("<", parts, Markup("<br/>")) == "&lt;<li>a&amp;b</li><li>c</li><br/>"


def test_what_no_document_may_hold_is_replaced() -> None:
    made = text("a\x00b\ud800c\uffffd\n\te")
    assert made == "a\ufffdb\ufffdc\ufffdd\n\te"
    ElementTree.fromstring(f"<p>{made}</p>")
