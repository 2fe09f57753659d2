"""Values as they cross between a parent and its worker: JSON, and bundles as their folders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python

from edgelr.core.bundle import ExportBundle, read_bundle


def packed(value: Any) -> Any:
    """Turn a value into what JSON has: arrays become lists, dataclasses objects."""
    if isinstance(value, ExportBundle):
        return str(value.folder.resolve())
    if isinstance(value, Mapping):
        return {name: packed(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [packed(each) for each in value]
    if isinstance(value, Path):
        return str(value.resolve())
    return to_jsonable_python(value, fallback=lambda array: array.tolist())


def unpacked(kind: Any, value: Any) -> Any:
    """Turn JSON back into a value of a type.

    Raises:
        InputError: a bundle is not whole.
    """
    if kind is ExportBundle:
        return read_bundle(Path(value))
    return TypeAdapter(kind).validate_python(value)
