"""Write every result as JSON, and read report.json.

Infinite and undefined numbers become the strings ``"Infinity"``, ``"-Infinity"`` and ``"NaN"``,
because JSON has no word for them; reading turns them back into numbers.
"""

from __future__ import annotations

import json
from typing import Any

import pydantic_core
from pydantic import TypeAdapter, ValidationError

from edgelr.core.errors import InputError
from edgelr.core.report import Report

SCHEMA_VERSION = 1  # of report.json, methods.json, sweep.json and diffs


def to_json(result: object) -> str:
    """Write a frozen dataclass as JSON, in the order of its fields."""
    return pydantic_core.to_json(result, indent=2, inf_nan_mode="strings").decode() + "\n"


def from_json(text: str) -> Report:
    """Read a report that ``to_json`` wrote.

    Raises:
        InputError: the text is not JSON, has another schema version, misses a field, has an
            unknown one, or a value of the wrong type.
    """
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"The report is not JSON: {error}. Expected a file that edgelr wrote, "
            f"DIR/reports/<profile>.json. Give its path."
        ) from error
    _check_version(values)
    try:
        return TypeAdapter(Report).validate_python(values, extra="forbid")
    except ValidationError as error:
        raise InputError(_explain(error)) from error


def json_schema() -> dict[str, Any]:
    """Describe report.json as a JSON Schema."""
    return TypeAdapter(Report).json_schema()


def _check_version(values: Any) -> None:
    found = values.get("schema_version") if isinstance(values, dict) else None
    if found != SCHEMA_VERSION:
        raise InputError(
            f"The report has schema version {found!r}; this edgelr reads version "
            f"{SCHEMA_VERSION}. Read it with the edgelr that wrote it, or write it again with "
            f"`edgelr validate` and `edgelr measure` on its bundle."
        )


def _explain(error: ValidationError) -> str:
    problems = [
        f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
        for problem in error.errors(include_url=False, include_input=False)
    ]
    shown = "; ".join(problems[:5])
    return (
        f"The report has {len(problems)} field(s) that schema version {SCHEMA_VERSION} does not "
        f"allow: {shown}. Expected exactly the fields of docs/report.md. Undo the edit, or write "
        f"the report again."
    )
