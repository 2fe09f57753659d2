"""Programs of the card: one for every task, told with all that it needs and how it is called."""

from __future__ import annotations

import ast
import dataclasses
import re
import sys

import pytest
import yaml

from edgelr.core.modality import MODALITIES
from edgelr.core.report import Report
from edgelr.report.card import model_card
from edgelr.report.usage import USAGES, Usage, snippet
from tests.helpers.paths import SNIPPETS
from tests.helpers.reports import make_report

PACKAGES = {"PIL": "Pillow"}  # by what is imported of them
ALONG = {"numpy"}  # comes with onnxruntime


@pytest.fixture
def report() -> Report:
    return make_report()


def cases() -> list[object]:
    """Every usage, by its modality and task."""
    return [
        pytest.param(usage, id=f"{modality}:{task}")
        for modality, usages in USAGES.items()
        for task, usage in usages.items()
    ]


def imported(program: str) -> set[str]:
    """Name the packages that a program imports, beside what Python has."""
    nodes = list(ast.walk(ast.parse(program)))
    names = {each.name for node in nodes if isinstance(node, ast.Import) for each in node.names}
    names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name.split(".")[0] for name in names} - set(sys.stdlib_module_names)


@pytest.mark.parametrize("modality", MODALITIES.names())
def test_every_modality_shows_a_program_for_each_of_its_tasks(
    report: Report, modality: str
) -> None:
    usages = USAGES.get(modality)
    assert set(usages) == set(MODALITIES.get(modality).tasks)
    shipped = [path.read_text(encoding="utf-8") for path in SNIPPETS.glob("*.py")]
    for task, usage in usages.items():
        card = model_card(dataclasses.replace(report, task=task), modality)
        assert f"{usage.text}\n\n```python\n{usage.program}" in card
        assert usage.program in shipped
        (name,) = set(re.findall(r"`python (\w+\.py) FOLDER", card))
        assert snippet(name) == usage.program
        assert yaml.safe_load(card.split("---\n")[1]).get("pipeline_tag") == usage.tag


@pytest.mark.parametrize("usage", cases())
def test_a_program_needs_what_its_text_names_and_nothing_else(usage: Usage) -> None:
    named = set(re.findall(r"\[(\w+)\]\(https://", usage.text))
    needed = {PACKAGES.get(name, name) for name in imported(usage.program) - ALONG}
    assert needed == named


@pytest.mark.parametrize("usage", cases())
def test_a_program_is_saved_and_called_under_one_name(usage: Usage) -> None:
    text = " ".join(usage.text.split())
    (saved,), (called,) = (
        re.findall(pattern, text) for pattern in (r"save this as `(\S+)`", r"`python (\S+) FOLDER")
    )
    assert saved == called
    assert f"python {saved} FOLDER" in (ast.get_docstring(ast.parse(usage.program)) or "")


def test_images_have_a_tag_of_their_own_where_they_are_embedded(report: Report) -> None:
    embedding = dataclasses.replace(report, task="feature-extraction")
    cards = [model_card(embedding, modality) for modality in ("text_encoder", "image_encoder")]
    assert "pipeline_tag: feature-extraction\n" in cards[0]
    assert "pipeline_tag: image-feature-extraction\n" in cards[1]
