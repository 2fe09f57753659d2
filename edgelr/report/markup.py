"""HTML and SVG as text; everything that was not made here is escaped.

Names of models, reasons, commands and notes come from outside. They are escaped when they become
part of an element, so that no caller has to remember to.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape
from typing import TypeAlias

Attribute: TypeAlias = str | int | float | bool | None
VOID = frozenset({"br", "input", "line", "link", "meta", "path", "rect", "circle"})
_NOT_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


class Markup(str):
    """Text that is markup already; any other text is escaped."""

    __slots__ = ()


Child: TypeAlias = str | Iterable[str]


def element(name: str, /, *children: Child, **attributes: Attribute) -> Markup:
    """Write an element.

    Args:
        name: name of the element, such as ``"td"``.
        children: markup, text that will be escaped, or several of them.
        attributes: values by name: ``class_`` and ``for_`` lose their underscore, others have a
            hyphen for it; None and False leave an attribute out, True gives it no value.
    """
    told = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in VOID:
        return Markup(f"<{name}{told}/>")
    return Markup(f"<{name}{told}>{joined(*children)}</{name}>")


def joined(*children: Child) -> Markup:
    """Join children without anything between them."""
    parts = (part for child in children for part in ([child] if isinstance(child, str) else child))
    return Markup("".join(map(text, parts)))


def text(value: str) -> Markup:
    """Escape text that is not markup; characters that XML forbids become U+FFFD."""
    if isinstance(value, Markup):
        return value
    return Markup(escape(_NOT_IN_XML.sub("\ufffd", value), quote=True))


def _attribute(key: str, value: Attribute) -> str:
    name = key.rstrip("_").replace("_", "-")
    if value is None or value is False:
        return ""
    if value is True:
        return f' {name}=""'
    return f' {name}="{text(_number(value))}"'


def _number(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.6g}"
