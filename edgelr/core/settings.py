"""What a run is asked to do: the command line's options, and ``edgelr.yaml``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from edgelr.core.errors import InputError
from edgelr.core.tasks import TASKS
from edgelr.core.vocabulary import Adapter, AskedPrecision, Form, Grouping, HealedSites, Task

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9,
          "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}  # fmt: skip
SHORT_PRECISIONS = {"fp32": "float32", "fp16": "float16"}
_AIMS = ("keep", "max_size", "max_drop", "max_latency")


class Settings(BaseModel):
    """Everything that decides a run; ``edgelr.yaml`` holds these fields by these names.

    At most one of ``keep``, ``max_size``, ``max_drop`` and ``max_latency`` may be given. With none
    of them the smallest plan inside the profile's accuracy gate is taken.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    profile: str = "jetson"
    out: str | None = None
    recipe: str = "edgelr"
    grouping: Grouping | None = None
    method: str | None = None
    allocator: str | None = None
    forms: tuple[Form, ...] | None = None
    task: Task | None = None
    precision: AskedPrecision | None = None
    keep: float | None = Field(default=None, gt=0, le=1)
    max_size: str | None = None
    max_drop: float | None = Field(default=None, gt=0, lt=10)
    max_latency: float | None = Field(default=None, gt=0)
    calibration: tuple[str, ...] = ()
    calibration_tokens: int | None = Field(default=None, ge=256)
    calibration_length: int | None = Field(default=None, ge=8)
    evaluation: str | None = None
    labels: str | None = None
    label_template: str = "a photo of a {}"
    context_tokens: int | None = Field(default=None, ge=1)
    rounds: int = Field(default=1, ge=1, le=4)
    heal_steps: int | None = Field(default=None, ge=1)
    heal_minutes: float | None = Field(default=None, gt=0)
    heal_sites: HealedSites | None = None
    heal_adapter: Adapter | None = None
    seed: int = 0
    opset: int | None = Field(default=None, ge=11)
    provider: Literal["cpu", "cuda"] | None = None
    revision: str | None = None
    trust_remote_code: bool = False
    with_tests: bool = False

    @field_validator("task")
    @classmethod
    def _known_task(cls, task: Task | None) -> Task | None:
        if task is not None and task not in TASKS.names():
            raise ValueError(f"expected one of {', '.join(TASKS.names())}")
        return task

    @model_validator(mode="after")
    def _one_aim(self) -> Settings:
        aims = [name for name in _AIMS if getattr(self, name) is not None]
        if len(aims) > 1:
            raise ValueError(f"{' and '.join(aims)} are given; expected at most one of them")
        if self.max_size is not None:
            parse_size(self.max_size)
        return self

    @property
    def max_size_bytes(self) -> int | None:
        """``max_size`` in bytes."""
        return None if self.max_size is None else parse_size(self.max_size)


def parse_size(text: str) -> int:
    """Read a size such as ``60MB``, ``1.5GiB`` or ``60000000`` in bytes.

    Raises:
        ValueError: it is none.
    """
    match = re.fullmatch(r"\s*(\d*\.?\d+)\s*([A-Za-z]*)\s*", text)
    if not match or match[2].upper() not in _UNITS:
        raise ValueError(f"{text!r} is no size; expected for instance 60MB or 1.5GiB")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def make_settings(**options: Any) -> Settings:
    """Check options and collect them.

    Raises:
        InputError: an option is unknown or out of range.
    """
    try:
        return Settings(**options)
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, item['loc']))}: {item['msg']} (found {_short(item['input'])})"
            if item["loc"]
            else item["msg"].removeprefix("Value error, ")
            for item in error.errors()
        ]
        raise InputError("The options cannot be used: " + "; ".join(problems) + ".") from error


def read_settings(path: Path, overrides: dict[str, Any]) -> Settings:
    """Read ``edgelr.yaml``; options of the command line win over it, an aim over any aim.

    Raises:
        InputError: the file is missing, no YAML mapping, or holds unknown or impossible values.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"Cannot read {path}: {error}. Expected a YAML file.") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} holds no mapping; expected lines such as 'profile: jetson'.")
    given = {str(name): value for name, value in found.items()}
    if not overrides.keys().isdisjoint(_AIMS):  # a new aim takes the place of the file's
        given = {name: value for name, value in given.items() if name not in _AIMS}
    return make_settings(**{**given, **overrides})


def write_settings(settings: Settings, path: Path) -> None:
    """Write the ``edgelr.yaml`` that reproduces a run."""
    values = settings.model_dump(mode="json", exclude_defaults=True)
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def _short(value: Any) -> str:
    return type(value).__name__ if isinstance(value, (dict, list)) else str(value)
