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
from rich.console import Console

from edgelr import types
from edgelr.errors import InputError
from edgelr.report.card import model_card, snippet
from edgelr.report.markdown import to_markdown
from edgelr.report.schema import from_json, json_schema, to_json
from edgelr.report.terminal import print_budget, print_plan, print_report

MIB = 2**20
DOCUMENTATION = Path(__file__).parents[1] / "docs" / "report.md"


SURE = types.Interval(23.1, 23.8, 128)


def site(name: str, form: types.Form, size: int, reason: str) -> types.SitePlan:
    candidate = types.Candidate(form, 7, "float16", size, 2 * size, 0.125)
    return types.SitePlan(name, 24, 40, candidate, 20 * MIB, reason, resident_bytes=size)


def measurement(name: str, milliseconds: float) -> types.Measurement:
    phases = (
        types.PhaseLatency("prefill", 1, 128, 0, 9, milliseconds, 101.5, 102.5, 640.0),
        types.PhaseLatency("decode", 1, 1, 512, 9, milliseconds / 4, 31.5, 32.5, 40.0),
    )
    memory = types.MemoryUse(300 * MIB, 77 * MIB, 411 * MIB, 33 * MIB)
    return types.Measurement(
        name, "CPUExecutionProvider", "float32", 2, 90 * MIB, 812.0, phases, memory
    )


@pytest.fixture
def report() -> types.Report:
    plan = types.Plan(
        sites=(
            site("model.layers.0.self_attn.q_proj", "low_rank", 11 * MIB, "lowest loss per byte"),
            site("model.layers.1.self_attn.q_proj", "pivoted", 12 * MIB, "lowest loss per byte"),
            site("model.layers.0.mlp.up_proj", "dense", 20 * MIB, "dense is smaller"),
        ),
        recipe="default",
        allocator="lagrangian",
        budget_bytes=55 * MIB,
        planned_bytes=43 * MIB,
        predicted_loss=0.375,
    )
    return types.Report(
        schema_version=1,
        created="2031-05-06T07:08:09Z",
        command='edgelr export "models/tiny" --profile jetson',
        source="owner/tiny-model",
        digest="sha256:abc",
        task="text-generation",
        profile="jetson",
        profile_title="Jetson Orin Nano 8 GB",
        recipe="default",
        fits=True,
        headroom_bytes=1234 * MIB,
        dense_file_bytes=150 * MIB,
        bundle_file_bytes=90 * MIB,
        budget=types.Budget(
            *(size * MIB for size in (7620, 819, 400, 108, 64, 45)), context_tokens=2048
        ),
        plan=plan,
        validation=types.Validation(
            parity=types.Parity(1.5e-4, 1e-3, 2.5e-4, 8, 7, 32, 0.0125, 0.05),
            metrics=(types.Metric("perplexity", 23.45, 22.55, 16384, "", SURE),),
            gate=types.Gate("perplexity", 23.45, 24.125, higher_is_better=False, worst=23.8),
            precision="float16",
            provider="CPUExecutionProvider",
            text="a text | of its own",
        ),
        comparison=types.Comparison(
            measurement("dense", 98.5),
            measurement("bundle", 67.5),
            {"prefill 128": 0.6875, "decode 512": 0.7125},
        ),
        prediction=types.Prediction(
            (
                types.PredictedPhase("prefill 128", 33.5, 22.75),
                types.PredictedPhase("decode 512", 9.25, 6.125),
            ),
            512 * MIB,
        ),
        host_is_device=False,
        seconds={"statistics": 12.5},
        peak_bytes=2048 * MIB,
        environment={"onnxruntime": "1.31.1"},
        notes=("Calibrated on text sampled from the model itself.",),
    )


def unmeasured(report: types.Report) -> types.Report:
    return dataclasses.replace(report, validation=None, comparison=None, prediction=None)


def test_json_round_trip_is_lossless(report: types.Report) -> None:
    assert from_json(to_json(report)) == report
    assert from_json(to_json(unmeasured(report))) == unmeasured(report)


def test_infinite_and_undefined_numbers_survive(report: types.Report) -> None:
    text = to_json(dataclasses.replace(report, seconds={"a": math.inf, "b": math.nan}))
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    seconds = from_json(text).seconds
    assert seconds["a"] == math.inf
    assert math.isnan(seconds["b"])


@pytest.mark.parametrize("path", [(), ("budget",), ("validation", "parity")])
def test_an_unknown_key_is_refused_by_name(report: types.Report, path: tuple[str, ...]) -> None:
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


def test_markdown_contains_the_figures(report: types.Report) -> None:
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


def test_a_failed_gate_and_a_failed_parity_are_said_first(report: types.Report) -> None:
    assert report.validation is not None
    gate = types.Gate("accuracy", 0.5, 0.75, higher_is_better=True)
    validation = dataclasses.replace(report.validation, gate=gate)
    failed = dataclasses.replace(report, fits=False, validation=validation)
    verdict = to_markdown(failed).split("## ")[0]
    assert "Does not fit" in verdict
    assert "gate FAILED: accuracy is 0.5, allowed is at least 0.75" in verdict
    assert "Parity FAILED" in verdict


def test_host_figures_never_stand_for_the_device(report: types.Report) -> None:
    heading = "Measured on this host, not on Jetson Orin Nano 8 GB"
    assert heading in to_markdown(report)
    assert "None of them stands for the device" in to_markdown(report)
    on_device = to_markdown(dataclasses.replace(report, host_is_device=True))
    assert heading not in on_device
    assert "Measured on Jetson Orin Nano 8 GB" in on_device


def test_missing_sections_are_said_not_hidden(report: types.Report) -> None:
    text = to_markdown(unmeasured(report))
    for section in ("Accuracy", "Parity", "Latency", "Memory"):
        assert f"{section}: not measured" in text


@pytest.mark.parametrize("columns", [80, 100])
def test_terminal_fits_its_columns(report: types.Report, columns: int) -> None:
    console = Console(file=io.StringIO(), width=columns)
    for one in (report, unmeasured(report)):
        print_report(one, console)
    print_plan(report.plan, console)
    print_budget(report.budget, report.plan.planned_bytes, console)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert max(len(line) for line in lines) <= columns
    assert "Latency and memory: not measured." in lines


def test_card_holds_the_examples_of_its_task(report: types.Report) -> None:
    decoder = model_card(report)
    assert decoder.startswith("---\nbase_model: owner/tiny-model\n")
    assert snippet("generate.py") in decoder
    assert snippet("generate_genai.py") in decoder
    encoder = model_card(dataclasses.replace(report, task="feature-extraction"))
    assert snippet("embed.py") in encoder
    assert "genai" not in encoder


def test_card_of_a_local_model_does_not_show_the_path(report: types.Report) -> None:
    card = model_card(dataclasses.replace(report, source="/home/someone/tiny.Q4_1.gguf"))
    assert "base_model: tiny.Q4_1\n" in card
    assert "someone" not in card


def test_a_report_from_before_intervals_is_read(report: types.Report) -> None:
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
    assert {field.name for field in dataclasses.fields(types.Report)} <= names
    assert sorted(name for name in names if f"`{name}`" not in text) == []
