"""The HTML report: complete, self-contained, and safe whatever a model is called."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser

import pytest

from edgelr.core.report import Report
from edgelr.report.drawings import drawings
from edgelr.report.html import to_html
from edgelr.report.svg import style_sheet
from tests.helpers.reports import make_report, unmeasured

ATTACK = "</script><script>alert('x')</script><img src=//evil.example onerror=alert(1)>\x00&\ud800"
SVG = "{http://www.w3.org/2000/svg}"


class Elements(HTMLParser):
    """Collects the elements of a page, their attributes and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def named(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.found if tag in tags]

    @property
    def text(self) -> str:
        return "".join(self.words)


@pytest.fixture
def report() -> Report:
    return make_report()


def hostile(report: Report) -> Report:
    """Put markup wherever a model or a user has a say."""
    plan = dataclasses.replace(
        report.plan,
        sites=tuple(
            dataclasses.replace(each, name=f"{each.name}.{ATTACK}", reason=ATTACK, group=ATTACK)
            for each in report.plan.sites
        ),
        recipe=ATTACK,
    )
    assert report.validation is not None
    validation = dataclasses.replace(report.validation, text=ATTACK, notes=(ATTACK,))
    return dataclasses.replace(
        report, plan=plan, source=f"models/{ATTACK}", command=ATTACK, notes=(ATTACK,),
        profile_title=ATTACK, recipe=ATTACK, validation=validation, environment={ATTACK: ATTACK},
        spectra={each.name: (0.5,) * 9 for each in plan.sites},
    )  # fmt: skip


def test_the_page_has_the_figures_of_every_section(report: Report) -> None:
    text = Elements(to_html(report)).text
    figures = (
        "Fits the memory budget of Jetson Orin Nano 8 GB, 1,234.0 MiB to spare.",
        "prefill 128 in 0.688",
        "150.0 MiB",
        "all else: embeddings, norms, the graph",
        "23.45",
        "loss, nats per token",
        "98.5 / 101.5 / 102.5",
        "Ship the bundle, as it is made up here.",
        "Loss of perplexity, %, against size",
        "dense int4: 52 MiB",
        "is outside the gate",
        "key/value cache of 2,048 tokens",
        "Ranks, % of the full rank",
        "Spectra",
        "model.layers.0.mlp.up_proj",
        "dense is smaller",
        report.command,
        "Calibrated on text sampled from the model itself.",
    )
    assert [figure for figure in figures if figure not in text] == []


def test_what_was_not_measured_is_said_not_hidden(report: Report) -> None:
    page = Elements(to_html(unmeasured(report)))
    for said in ("Accuracy and parity: not measured", "Latency and memory: not measured"):
        assert said in page.text
    assert "There is no prediction for the device." in page.text
    shown = {attributes.get("id") for attributes in page.named("section")}
    assert shown == {"verdict", "size", "accuracy", "latency", "device", "layers", "made"}


def test_markup_in_names_is_shown_and_never_run(report: Report) -> None:
    html = to_html(hostile(report))
    page = Elements(html)
    assert len(page.named("script")) == 1
    assert page.named("img", "iframe", "object", "embed", "base") == []
    assert not [key for _, found in page.found for key in found if key.startswith("on")]
    assert "<img src=//evil.example onerror=alert(1)>" in page.text
    html.encode("utf-8")


def test_the_page_loads_nothing_and_runs_its_own_script_only(report: Report) -> None:
    page = Elements(to_html(report))
    linked = [found[key] for _, found in page.found for key in ("src", "href") if key in found]
    assert linked
    assert all(target and target.startswith("#") for target in linked)
    assert page.named("link") == []
    policy = next(found["content"] for found in page.named("meta") if found.get("http-equiv"))
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy
    for name in ("page.js", "page.css", "chart.css"):  # they are put into the page as they are
        assert not re.search(r"</|<!--|url\(\s*['\"]?(?!#)|@import|https?:", style_sheet(name))


def test_links_lead_to_sections_and_ids_are_unique(report: Report) -> None:
    page = Elements(to_html(report))
    ids = [found["id"] for _, found in page.found if "id" in found]
    assert len(ids) == len(set(ids))
    for key in ("href", "aria-labelledby"):
        used = [found[key] or "" for _, found in page.found if key in found]
        assert {name.lstrip("#") for each in used for name in each.split()} <= set(ids)


def test_every_drawing_says_in_words_what_it_shows(report: Report) -> None:
    page = Elements(to_html(report))
    drawn = page.named("svg")
    assert len(drawn) == len(drawings(report)) == 9
    assert all(each["role"] == "img" for each in drawn)
    for chart in drawings(report).values():
        assert chart.title
        assert len(chart.description) > 40
