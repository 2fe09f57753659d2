"""The pages in a real browser: nothing is loaded, nothing is cut off, and headings sort."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgelr.report import pareto_html
from edgelr.report.html import to_html
from edgelr.report.pareto import collect
from tests.helpers.reports import make_report, wide

pytestmark = pytest.mark.browser
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WIDTHS = (390, 1280)
READABLE = 4.5  # contrast of text, WCAG 2.2 AA
ON_COLOUR = 3.8  # of a figure on its field: nothing has more than 4.6 on every shade

# Contrast of an element's text with the nearest background behind it.
CONTRAST = """element => {
  const numbers = colour => {
    const found = colour.match(/[\\d.]+/g).map(Number);
    return found.length < 4 ? [...found, 1] : found;
  };
  const light = colour => {
    const part = value => {
      value /= 255;
      return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    };
    const [r, g, b] = colour;
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const behind = node => {
    for (; node; node = node.parentElement) {
      const found = numbers(getComputedStyle(node).backgroundColor);
      if (found[3] === 1) return found;
    }
    return [255, 255, 255, 1];
  };
  const style = getComputedStyle(element);
  const svg = element.namespaceURI.endsWith("svg");
  let back = behind(element);
  const field = svg && element.parentElement.querySelector(":scope > rect.cell");
  if (field) {
    const share = Number(getComputedStyle(field).fillOpacity);
    const top = numbers(getComputedStyle(field).fill);
    back = top.map((value, index) => share * value + (1 - share) * back[index]);
  }
  const pair = [light(numbers(svg ? style.fill : style.color)), light(back)];
  return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip(f"no browser is installed: none of {', '.join(PROGRAMS)} is there")
    with api.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("page") / "report.html"
    report = wide(make_report())
    found.write_text(to_html(report), encoding="utf-8")
    several = collect([(Path("a/one"), report), (Path("another/of-a-long-name"), report)], "edgelr")
    found.with_name("several.html").write_text(pareto_html.to_html(several), encoding="utf-8")
    return found


@pytest.fixture
def opened(browser: Any, path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A page at a width and in a scheme, which has to stay silent."""
    width, scheme = getattr(request, "param", (1280, "light"))
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda asked: said.append(asked.url))
    page.goto(path.as_uri())
    yield page
    page.wait_for_timeout(50)
    context.close()
    assert said == [path.as_uri()], "the page itself is all that is asked for, and nothing is said"


views = pytest.mark.parametrize(
    "opened", [(width, scheme) for width in WIDTHS for scheme in ("light", "dark")], indirect=True
)


@views
def test_every_section_is_shown_and_the_page_never_scrolls_sideways(opened: Any) -> None:
    width = opened.viewport_size["width"]
    assert opened.evaluate("document.documentElement.scrollWidth") == width
    sections = opened.locator("section")
    assert sections.count() == 7
    for index in range(sections.count()):
        section = sections.nth(index)
        section.scroll_into_view_if_needed()
        assert section.is_visible()
        box = section.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert box["height"] > 60


@views
def test_text_stands_out_from_what_is_behind_it(opened: Any) -> None:
    for selector in ("h1", ".told", "nav a", ".verdicts li", ".mark", "figcaption", "td", "th",
                     "caption", ".badge", "code", ".copy", "dt", "dd", "svg text"):  # fmt: skip
        places = opened.locator(selector)
        assert places.count()
        contrasts = places.evaluate_all(f"found => found.map({CONTRAST})")
        limit = ON_COLOUR if selector == "svg text" else READABLE
        assert min(contrasts) >= limit, selector


@pytest.mark.parametrize("opened", [(390, "light")], indirect=True)
def test_drawings_are_as_wide_as_a_phone_lets_them_be_with_letters_that_can_be_read(
    opened: Any,
) -> None:
    letters = opened.locator("#latency svg text").first
    size = "element => element.getScreenCTM().a * parseFloat(getComputedStyle(element).fontSize)"
    assert letters.evaluate(size) >= 9.5


@pytest.mark.parametrize("width", WIDTHS)
def test_bundles_beside_each_other_fit_the_page_too(browser: Any, path: Path, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 844})
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(path.with_name("several.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert all(page.locator("section").evaluate_all("found => found.map(e => e.clientHeight > 60)"))
    numbers = page.locator("svg").first.locator("g text").all_text_contents()
    assert numbers == ["1", "2"]
    assert said == []
    page.close()


def test_a_heading_sorts_its_table_with_the_mouse(opened: Any) -> None:
    table = opened.locator("#layers table").last
    ranks = table.locator("thead th", has_text=re.compile(r"^rank$"))
    column = opened.evaluate("th => th.cellIndex", ranks.element_handle())
    cells = table.locator(f"tbody tr > :nth-child({column + 1})")
    before = list(map(int, cells.all_text_contents()))
    ranks.locator("button").click()
    assert list(map(int, cells.all_text_contents())) == sorted(before) != before
    assert ranks.get_attribute("aria-sort") == "ascending"
    ranks.locator("button").click()
    assert list(map(int, cells.all_text_contents())) == sorted(before, reverse=True)
    assert ranks.get_attribute("aria-sort") == "descending"


def test_a_heading_sorts_its_table_with_the_keyboard(opened: Any) -> None:
    table = opened.locator("#layers table").last
    name = table.locator("thead th").first
    name.locator("button").focus()
    for key, order in (("Enter", "ascending"), ("Space", "descending")):
        opened.keyboard.press(key)
        assert name.get_attribute("aria-sort") == order
    layers = [int(found.split(".")[2]) for found in table.locator("tbody th").all_text_contents()]
    assert layers == sorted(layers, reverse=True), "layer 10 comes after layer 9"
    opened.keyboard.press("Tab")
    focused = opened.evaluate("document.activeElement.textContent")
    assert focused == table.locator("thead th").nth(1).text_content()


def test_a_total_stays_below_what_it_is_the_sum_of(opened: Any) -> None:
    table = opened.locator("#size table").last
    table.locator("thead button").nth(1).click()
    assert table.locator("tr").last.locator("th").text_content() == "all"


def test_the_command_is_copied(opened: Any) -> None:
    opened.locator(".copy").click()
    opened.wait_for_function("document.querySelector('.copy').textContent === 'Copied'")


def test_on_paper_every_row_of_every_table_is_there(opened: Any) -> None:
    opened.emulate_media(media="print")
    assert not opened.locator("nav").is_visible()
    cut = "found => found.filter(each => each.scrollHeight > each.clientHeight + 1).length"
    assert opened.locator(".scroll").evaluate_all(cut) == 0
    assert len(opened.pdf()) > 10_000
