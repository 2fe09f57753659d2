"""Read the reports and the lock of a finished bundle."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgelr.core.errors import InputError
from edgelr.core.report import Report
from edgelr.report.schema import from_json


def report_files(folder: Path) -> list[Path]:
    """List the reports of a bundle, one per device.

    Raises:
        InputError: there is none.
    """
    found = sorted((folder / "reports").glob("*.json"))
    if not found:
        raise InputError(
            f"{folder} has no reports/*.json; expected a bundle that 'edgelr export' finished."
        )
    return found


def read_reports(folder: Path) -> list[Report]:
    """Read the reports of a bundle.

    Raises:
        InputError: there is none, or one cannot be read.
    """
    return [from_json(path.read_text(encoding="utf-8")) for path in report_files(folder)]


def read_lock(folder: Path) -> dict[str, str]:
    """Read the lock of a bundle, with names such as ``settings.keep``; empty without a lock.

    Raises:
        InputError: the lock is no JSON object.
    """
    path = folder / "edgelr" / "lock.json"
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return dict(_flat(found))
    except (ValueError, AttributeError) as error:
        raise InputError(
            f"{path} cannot be read ({error}); expected what 'edgelr export' wrote. Copy the "
            f"bundle again."
        ) from error


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, str) else json.dumps(value)
