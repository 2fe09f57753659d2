"""report.json: every field of ``Report``, and nothing else.

Infinite and undefined numbers become the strings ``"Infinity"``, ``"-Infinity"`` and ``"NaN"``,
because JSON has no word for them; reading turns them back into numbers.
"""

from __future__ import annotations

import functools
import json
import math
from typing import TYPE_CHECKING, Any

from edgelr.core.errors import InputError
from edgelr.core.report import Report

if TYPE_CHECKING:
    from pydantic import TypeAdapter

SCHEMA_VERSION = 1


def to_json(report: Report) -> str:
    """Write a report as JSON, in the order of its fields."""
    values = _adapter().dump_python(report, mode="json")
    return json.dumps(_spell_numbers(values), indent=2, allow_nan=False) + "\n"


def from_json(text: str) -> Report:
    """Read a report that ``to_json`` wrote.

    Raises:
        InputError: the text is not JSON, has another schema version, misses a field, has an
            unknown one, or a value of the wrong type.
    """
    from pydantic import ValidationError

    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"The report is not JSON: {error}. Expected a file that edgelr wrote, "
            f"DIR/reports/<profile>.json. Give its path."
        ) from error
    _check_version(values)
    try:
        return _adapter().validate_python(values, extra="forbid")
    except ValidationError as error:
        raise InputError(_explain(error)) from error


def json_schema() -> dict[str, Any]:
    """Describe report.json as a JSON Schema."""
    return _adapter().json_schema()


@functools.cache
def _adapter() -> TypeAdapter[Report]:
    from pydantic import TypeAdapter

    return TypeAdapter(Report)


def _check_version(values: Any) -> None:
    found = values.get("schema_version") if isinstance(values, dict) else None
    if found != SCHEMA_VERSION:
        raise InputError(
            f"The report has schema version {found!r}; this edgelr reads version "
            f"{SCHEMA_VERSION}. Read it with the edgelr that wrote it, or write it again with "
            f"`edgelr validate` and `edgelr measure` on its bundle."
        )


def _explain(error: Any) -> str:
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


def _spell_numbers(value: Any) -> Any:
    """Replace the floats that JSON cannot write by their names."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: _spell_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_spell_numbers(item) for item in value]
    return value
