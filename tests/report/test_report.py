"""Reports: nothing is lost on the way to JSON, nothing is hidden on the way to a reader."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from edgelr.core.errors import InputError
from edgelr.core.modality import MODALITIES
from edgelr.core.report import Report
from edgelr.core.results import Gate
from edgelr.report.card import license_of, model_card
from edgelr.report.markdown import to_markdown
from edgelr.report.schema import from_json, json_schema, to_json
from edgelr.report.tables import memory_table
from edgelr.report.terminal import print_budget, print_plan, print_report
from edgelr.report.usage import USAGES, snippet
from tests.helpers.paths import ROOT
from tests.helpers.reports import make_report, unmeasured

DOCUMENTATION = ROOT / "docs" / "report.md"


@pytest.fixture
def report() -> Report:
    return make_report()


def test_json_round_trip_is_lossless(report: Report) -> None:
    assert from_json(to_json(report)) == report
    assert from_json(to_json(unmeasured(report))) == unmeasured(report)


def test_infinite_and_undefined_numbers_survive(report: Report) -> None:
    text = to_json(dataclasses.replace(report, seconds={"a": math.inf, "b": math.nan}))
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    seconds = from_json(text).seconds
    assert seconds["a"] == math.inf
    assert math.isnan(seconds["b"])


def test_the_memory_of_a_gpu_stands_beside_that_of_the_process(report: Report) -> None:
    assert report.comparison is not None
    dense, bundle = report.comparison.dense, report.comparison.bundle
    assert "on the GPU" not in memory_table(report.comparison).columns
    memory = dataclasses.replace(bundle.memory, gpu_bytes=924 << 20)
    ran = dataclasses.replace(bundle, provider="CUDAExecutionProvider", memory=memory)
    table = memory_table(ran)
    assert dict(zip(table.columns, table.rows[0], strict=True))["on the GPU"] == "924.0"
    assert (memory.most_bytes, dense.memory.most_bytes) == (924 << 20, dense.memory.peak_bytes)


@pytest.mark.parametrize("path", [(), ("budget",), ("validation", "parity")])
def test_an_unknown_key_is_refused_by_name(report: Report, path: tuple[str, ...]) -> None:
    values: dict[str, Any] = json.loads(to_json(report))
    inner = values
    for key in path:
        inner = inner[key]
    inner["surprise"] = 1
    with pytest.raises(InputError, match=re.escape(".".join([*path, "surprise"]))):
        from_json(json.dumps(values))


@pytest.mark.parametrize("text", ['{"schema_version": 99}', "{}", "[]"])
def test_another_version_is_refused_with_advice(text: str) -> None:
    with pytest.raises(InputError, match=r"schema version .* reads version 1\. Read it with"):
        from_json(text)


def test_what_is_not_json_is_refused() -> None:
    with pytest.raises(InputError, match="not JSON"):
        from_json("# a report in Markdown")


def test_markdown_contains_the_figures(report: Report) -> None:
    text = to_markdown(report)
    figures = (
        "1,234.0 MiB to spare",
        "| planned weights | 43.0 |",
        "| headroom | 6,141.0 |",
        "| key/value cache of 2,048 tokens | 45.0 |",
        "| model files | 150.0 | 90.0 | 60.0 % |",
        "| perplexity | 22.55 | 23.45 | 23.1 to 23.8 | 16,384 in 128 parts |",
        "perplexity is 23.45 and at most 23.8 with 95 % confidence, allowed is at most 24.125",
        "at most 24.125",
        "7 of 8",
        "98.5 / 101.5 / 102.5",
        "| 0.688 |",
        "| bundle | 300.0 | 77.0 | 411.0 |",
        "PREDICTED for Jetson Orin Nano 8 GB",
        "| self_attn.q_proj | 2 | 0 | 1 | 1 | 57.5 % |",
        "1 dense: dense is smaller",
        report.command,
    )
    assert [figure for figure in figures if figure not in text] == []


def test_a_failed_gate_and_a_failed_parity_are_said_first(report: Report) -> None:
    assert report.validation is not None
    gate = Gate("accuracy", 0.5, 0.75, higher_is_better=True)
    validation = dataclasses.replace(report.validation, gate=gate)
    failed = dataclasses.replace(report, fits=False, validation=validation)
    verdict = to_markdown(failed).split("## ")[0]
    assert "Does not fit" in verdict
    assert "gate FAILED: accuracy is 0.5, allowed is at least 0.75" in verdict
    assert "Parity FAILED" in verdict


def test_host_figures_never_stand_for_the_device(report: Report) -> None:
    heading = "Measured on this host, not on Jetson Orin Nano 8 GB"
    assert heading in to_markdown(report)
    assert "None of them stands for the device" in to_markdown(report)
    on_device = to_markdown(dataclasses.replace(report, host_is_device=True))
    assert heading not in on_device
    assert "Measured on Jetson Orin Nano 8 GB" in on_device


def test_missing_sections_are_said_not_hidden(report: Report) -> None:
    text = to_markdown(unmeasured(report))
    for section in ("Accuracy", "Parity", "Latency", "Memory"):
        assert f"{section}: not measured" in text


@pytest.mark.parametrize("columns", [80, 100])
def test_terminal_fits_its_columns(report: Report, columns: int) -> None:
    console = Console(file=io.StringIO(), width=columns)
    for one in (report, unmeasured(report)):
        print_report(one, console)
    print_plan(report.plan, console)
    print_budget(report.budget, report.plan.planned_bytes, console)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert max(len(line) for line in lines) <= columns
    assert "Latency and memory: not measured." in lines


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


@pytest.mark.parametrize("modality", MODALITIES.names())
def test_every_modality_shows_a_program_for_each_of_its_tasks(
    report: Report, modality: str
) -> None:
    usages = USAGES.get(modality)
    assert set(usages) == set(MODALITIES.get(modality).tasks)
    for task, usage in usages.items():
        card = model_card(dataclasses.replace(report, task=task), modality)
        compile(usage.program, task, "exec")
        assert f"{usage.text}\n\n```python\n{usage.program}" in card
        assert yaml.safe_load(card.split("---\n")[1]).get("pipeline_tag") == usage.tag


def test_images_have_a_tag_of_their_own_where_they_are_embedded(report: Report) -> None:
    embedding = dataclasses.replace(report, task="feature-extraction")
    cards = [model_card(embedding, modality) for modality in ("text_encoder", "image_encoder")]
    assert "pipeline_tag: feature-extraction\n" in cards[0]
    assert "pipeline_tag: image-feature-extraction\n" in cards[1]


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


def test_a_report_from_before_intervals_is_read(report: Report) -> None:
    values = json.loads(to_json(report))
    for metric in values["validation"]["metrics"]:
        del metric["interval"]
    del values["validation"]["gate"]["worst"]
    found = from_json(json.dumps(values)).validation
    assert found is not None
    assert found.metrics[0].interval is None
    assert found.gate is not None
    assert found.gate.passed


def test_every_field_is_documented() -> None:
    text = DOCUMENTATION.read_text(encoding="utf-8")
    schema = json_schema()
    objects = [schema, *schema["$defs"].values()]
    names = {name for described in objects for name in described.get("properties", {})}
    assert {field.name for field in dataclasses.fields(Report)} <= names
    assert sorted(name for name in names if f"`{name}`" not in text) == []
