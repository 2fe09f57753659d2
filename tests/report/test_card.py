"""The model card: what the Hub reads, what an app runs, and no path of anyone's."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgelr.core.report import Report
from edgelr.report.card import license_of, model_card
from edgelr.report.usage import snippet
from tests.helpers.paths import ROOT
from tests.helpers.reports import make_report, unmeasured

DOCUMENTATION = ROOT / "docs" / "report.md"


@pytest.fixture
def report() -> Report:
    return make_report()


def decoder_card(report: Report, **options: bool) -> str:
    return model_card(report, "decoder", **options)


def test_card_holds_the_examples_of_its_task(report: Report) -> None:
    decoder = decoder_card(report)
    assert decoder.startswith("---\nbase_model: owner/tiny-model\n")
    assert snippet("generate.py") in decoder
    assert snippet("generate_genai.py") in decoder
    traced = decoder_card(report, in_genai=False)
    assert snippet("generate.py") in traced
    assert "generate_genai.py" not in traced
    assert "it has no `genai_config.json`" in traced
    encoder = model_card(dataclasses.replace(report, task="feature-extraction"), "text_encoder")
    assert snippet("embed.py") in encoder
    assert "genai" not in encoder


def test_card_of_a_local_model_does_not_show_the_path(report: Report) -> None:
    card = decoder_card(dataclasses.replace(report, source="/home/someone/tiny.Q4_1.gguf"))
    assert "base_model: tiny.Q4_1\n" in card
    assert "someone" not in card


def test_card_begins_with_what_the_hub_reads(report: Report) -> None:
    def facts(one: Report) -> dict[str, Any]:
        found: dict[str, Any] = yaml.safe_load(decoder_card(one).split("---\n")[1])
        return found

    assert facts(dataclasses.replace(report, license="apache-2.0")) == {
        "base_model": "owner/tiny-model",
        "license": "apache-2.0",
        "library_name": "onnxruntime",
        "pipeline_tag": "text-generation",
        "tags": ["onnx", "edgelr", "low-rank", "float16", "jetson"],
    }
    assert "license" not in facts(report)


def test_card_has_a_row_for_the_device(report: Report) -> None:
    row = "| Jetson Orin Nano 8 GB | yes | OUTSIDE its gate | 90.0 | 5,567.0 |"
    assert f"{row} 33.5 → 22.75 | 9.25 → 6.125 |" in decoder_card(report)
    assert "prefill 128, ms, PREDICTED" in decoder_card(report)
    there = decoder_card(dataclasses.replace(report, host_is_device=True))
    assert f"{row} 98.5 → 67.5 | 24.625 → 16.875 |" in there
    assert "prefill 128, ms |" in there
    assert f"{row}\n" in decoder_card(dataclasses.replace(report, prediction=None))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("---\nlicense: mit\ntags:\n- a\n---\n# A model", "mit"),
        ("---\nlicense:\n- mit\n- apache-2.0\n---\n", "mit, apache-2.0"),
        ("---\ntags: [a]\n---\n", ""),
        ("---\n[: no yaml\n---\n", ""),
        ("# A model\nlicense: mit", ""),
        (None, ""),
    ],
)
def test_a_license_is_taken_from_the_card_of_the_original(
    tmp_path: Path, text: str | None, expected: str
) -> None:
    if text is not None:
        (tmp_path / "README.md").write_text(text, encoding="utf-8")
    assert license_of(tmp_path) == expected


def test_tests_are_spoken_of_where_they_travel_along(report: Report) -> None:
    assert "pytest FOLDER/tests" in decoder_card(report, has_tests=True)
    assert "## Test it" not in decoder_card(report)


def test_without_figures_accuracy_is_said_to_be_unmeasured(report: Report) -> None:
    assert "Accuracy: not measured." in decoder_card(unmeasured(report))
    assert report.validation is not None
    none = dataclasses.replace(report.validation, metrics=())
    card = decoder_card(dataclasses.replace(report, validation=none))
    assert "Accuracy on a text | of its own: not measured." in card
