"""report.json: nothing is lost on the way, and nothing unknown comes back."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from typing import Any

import pytest

from edgelr.core.errors import InputError
from edgelr.core.report import Report
from edgelr.report.schema import from_json, json_schema, to_json
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
