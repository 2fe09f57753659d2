"""Finished rows on disk: an interrupted bench goes on from its last row."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from edgelr.core.errors import InputError
from edgelr.report.comparison import Row


class RowBook:
    """Rows in ``rows.json``, by key. Those of other questions stay in the file.

    Args:
        folder: folder of the file, which may not exist yet.
        reuse: whether the rows of earlier runs count as finished.

    Raises:
        InputError: the folder cannot be made, or the file holds something else.
    """

    def __init__(self, folder: Path, reuse: bool) -> None:
        self._path = folder / "rows.json"
        self._adapter = TypeAdapter(list[Row])
        try:
            folder.mkdir(parents=True, exist_ok=True)
            text = self._path.read_bytes() if self._path.exists() else b"[]"
            rows = self._adapter.validate_json(text, extra="forbid")
        except (OSError, ValidationError) as error:
            raise InputError(
                f"{self._path} cannot be used ({error}); expected the rows of an earlier bench, or "
                f"no file. Move it away, or name another folder with --out."
            ) from error
        self._rows = {row.key: row for row in rows}
        self._finished = set(self._rows) if reuse else set()

    def find(self, key: str) -> Row | None:
        """Return a finished row."""
        return self._rows[key] if key in self._finished else None

    def add(self, row: Row) -> None:
        """Keep a row, on disk as well; the file is whole at any time."""
        self._rows[row.key] = row
        self._finished.add(row.key)
        partial = self._path.with_suffix(".partial")
        partial.write_bytes(self._adapter.dump_json(list(self._rows.values()), indent=2))
        partial.replace(self._path)
