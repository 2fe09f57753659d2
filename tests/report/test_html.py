"""The HTML report: complete, self-contained, and safe whatever a model is called."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from edgelr.core.report import Report
from edgelr.report.drawings import drawings
from edgelr.report.html import to_html
from edgelr.report.markup import Markup, element
from edgelr.report.plan_tables import site_table
from edgelr.report.svg import style_sheet, ticks, to_file
from edgelr.stages.report import remaining_losses
from tests.helpers.reports import MIB, make_report, site, unmeasured

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
        "key/value cache of 2,048 tokens",
        "Kept ranks, % of the full rank",
        "Spectra",
        "model.layers.0.mlp.up_proj",
        "dense is smaller",
        report.command,
        "Calibrated on text sampled from the model itself.",
    )
    assert [figure for figure in figures if figure not in text] == []


def test_groups_are_named_where_there_are_any(report: Report) -> None:
    assert "with" not in site_table(report.plan).columns
    first, *others = report.plan.sites
    shared = dataclasses.replace(first, group="model.layers.0.input")
    found = site_table(dataclasses.replace(report.plan, sites=(shared, *others)))
    column = found.columns.index("with")
    assert [row[column] for row in found.rows] == ["model.layers.0.input", "–", "–"]
    assert all(len(row) == len(found.columns) for row in found.rows)


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
    assert len(drawn) == len(drawings(report)) == 8
    assert all(each["role"] == "img" for each in drawn)
    for chart in drawings(report).values():
        assert chart.title
        assert len(chart.description) > 40


def test_every_drawing_is_a_file_of_its_own(report: Report) -> None:
    for name, chart in drawings(hostile(report)).items():
        root = ElementTree.fromstring(to_file(chart, name).encode())
        assert root.tag == f"{SVG}svg"
        assert root.find(f"{SVG}style") is not None
        assert not [each for each in root.iter() if each.tag in (f"{SVG}script", f"{SVG}img")]


def test_predicted_figures_are_hatched_and_named_and_measured_ones_are_not(
    report: Report,
) -> None:
    root = ElementTree.fromstring(to_file(drawings(report)["latency"], "latency").encode())
    bars = [each for each in root if each.get("class") in ("bar dense", "bar bundle")]
    hatched = [each for each in bars if "url(#latency-" in each.get("style", "")]
    assert (len(bars), len(hatched)) == (8, 4)
    labels = [each.text or "" for each in root.iter(f"{SVG}text")]
    assert sum("(PREDICTED)" in label for label in labels) == len(hatched)


def test_bars_are_as_long_as_their_figures(report: Report) -> None:
    root = ElementTree.fromstring(to_file(drawings(report)["size"], "size").encode())
    widths = [float(each.get("width", 0)) for each in root if each.get("class", "")[:3] == "bar"]
    dense, bundle = widths[:2]
    assert bundle / dense == pytest.approx(90 / 150, abs=1e-3)


def test_a_plan_that_does_not_fit_shows_what_is_missing(report: Report) -> None:
    sites = (site("model.layers.0.mlp.up_proj", "dense", 9000 * MIB, "dense is smaller"),)
    crowded = dataclasses.replace(report, plan=dataclasses.replace(report.plan, sites=sites))
    chart = drawings(crowded)["budget"]
    assert "missing: 2,816.0 MiB" in chart.description
    assert "over" in to_file(chart, "budget")


def test_a_map_has_a_field_for_every_linear(report: Report) -> None:
    plan = dataclasses.replace(
        report.plan,
        sites=(
            *report.plan.sites,
            site("lm_head", "dense", 3 * MIB, "kept dense"),
            site("MatMul_7", "low_rank", 3 * MIB, "counted"),
            site("blocks.2.0.mlp", "low_rank", 3 * MIB, "counted"),
        ),
    )
    chart = drawings(dataclasses.replace(report, plan=plan))["ranks"]
    assert chart.columns == ("self_attn.q_proj", "mlp.up_proj", "lm_head", "MatMul", "mlp")
    assert [label for label, _ in chart.rows] == ["0", "1", "–", "7", "2.0"]
    told = [cell.description for _, cells in chart.rows for cell in cells if cell.value is not None]
    assert sorted(each.partition(":")[0] for each in told) == sorted(
        each.name for each in plan.sites
    )


def test_attributes_and_children_are_escaped_and_markup_is_not() -> None:
    made = element("p", "<&\"'", element("b", "x"), title='"><script>', class_="a", hidden=False)
    assert made == '<p title="&quot;&gt;&lt;script&gt;" class="a">&lt;&amp;&quot;&#x27;<b>x</b></p>'
    assert isinstance(made, Markup)


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0, 0.032), (-0.2, 1.3), (0, 97.8), (0, 5400), (3, 1003)]
)
def test_axes_have_a_few_round_ticks(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 3 <= len(found) <= 8
    assert found == sorted(set(found))
    assert all(low <= value <= high for value in found)


def test_spectra_are_shares_of_the_loss_without_any_component(report: Report) -> None:
    names = [each.name for each in report.plan.sites]
    losses = {
        names[0]: np.linspace(4.0, 0.0, 11),
        names[1]: np.append(np.inf, np.linspace(4.0, 0.0, 10)),
    }
    found = remaining_losses(report.plan, losses)
    assert list(found) == [names[0]]  # the others have none, or no figure for rank 0
    assert found[names[0]] == pytest.approx([0.1 * left for left in range(9, 0, -1)])
