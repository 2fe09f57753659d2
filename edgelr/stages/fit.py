"""Refuse data and sizes that do not fit a model, as far as its small files tell."""

from __future__ import annotations

import math
from pathlib import Path

from edgelr.core.errors import BudgetError, InputError
from edgelr.core.settings import Settings
from edgelr.core.vocabulary import LAYOUTS, AskedPrecision
from edgelr.data.file_lists import IMAGES, SOUNDS, list_files
from edgelr.model.dimensions import require_lengths
from edgelr.model.first_look import FirstLook
from edgelr.model.weight_headers import tensor_shapes, weight_files

FLOAT_BITS = 16  # of a weight in float16 or more


def require_fitting(seen: FirstLook, settings: Settings) -> None:
    """Refuse what does not fit a model, as far as its configuration and its headers tell.

    Raises:
        InputError: data of another kind are given, or rows that are too long.
        BudgetError: its table of embeddings alone is larger than the file may be.
    """
    kind = {"image": IMAGES, "sound": SOUNDS}.get(seen.reads)
    for path in map(Path, filter(None, (*settings.calibration, settings.evaluation))):
        if seen.reads == "text" and path.is_dir():
            raise InputError(
                f"{path} is a folder, and {settings.model} reads texts; expected a .txt or .jsonl "
                f"file. Name one."
            )
        if kind is not None and (path.is_dir() or path.suffix == ".txt"):
            list_files(path, kind)
    if seen.longest is not None:
        asked = {"context-tokens": settings.context_tokens}
        asked["calibration-length"] = settings.calibration_length
        require_lengths(asked, seen.longest, settings.model)
    if settings.max_size_bytes is not None and seen.rows is not None:
        _require_room_for_table(Path(settings.model), seen.rows, settings)


def _require_room_for_table(folder: Path, rows: int, settings: Settings) -> None:
    """Refuse a file that is smaller than the table of embeddings, a row for each token."""
    bits = _least_bits(settings.precision)
    tables = [
        math.prod(shape)
        for path in weight_files(folder)
        for shape in tensor_shapes(path)
        if len(shape) == 2 and shape[0] == rows
    ]
    least = min(tables, default=0) * bits // 8
    assert settings.max_size_bytes is not None
    if least > settings.max_size_bytes:
        raise BudgetError(
            f"The table of {rows:,} embeddings takes {least:,} bytes or more, and --max-size is "
            f"{settings.max_size_bytes:,}. Expected room for it and the linears. Give a larger "
            f"--max-size, a lower --precision, or a model of fewer tokens."
        )


def _least_bits(asked: AskedPrecision | None) -> int:
    """Count the bits of a weight, at least, in the precision that is asked for."""
    bits = {name: each.bits for name, each in LAYOUTS.items()}
    if asked is None or asked == "auto":
        return min(bits.values())
    return bits.get(asked, FLOAT_BITS)
