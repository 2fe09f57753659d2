# ruff: noqa: RUF009  (fields of the settings are declared by functions that call `field`)
"""What a run is asked to do: the command line's options, and ``edgelr.yaml``.

A field says all that the command line needs to offer it: no option is without its key in
``edgelr.yaml``, and no key without its option. Only checking and reading imports pydantic and yaml.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin, get_type_hints

from edgelr.core import units
from edgelr.core.errors import InputError, did_you_mean
from edgelr.core.vocabulary import Adapter, AskedPrecision, Form, Grouping, HealedSites, Task

if TYPE_CHECKING:
    from pydantic import TypeAdapter
    from pydantic_core import ErrorDetails

SHORT_PRECISIONS = {"fp32": "float32", "fp16": "float16"}
AIMS = ("keep", "max_size", "max_drop", "max_latency")


class Limits:
    """Limits of a number, in the words of pydantic, which reads them: gt, ge, lt, le."""

    def __init__(self, **limits: float) -> None:
        self._limits = limits

    def __get_pydantic_core_schema__(self, kind: Any, make: Callable[[Any], Any]) -> Any:
        return {**make(kind), **self._limits}


class Read:
    """Reader of a value with a unit, which pydantic calls before anything else."""

    def __init__(self, read: Callable[[Any], Any]) -> None:
        self._read = read

    def __get_pydantic_core_schema__(self, kind: Any, make: Callable[[Any], Any]) -> Any:
        called = {"type": "no-info", "function": self._read}
        return {"type": "function-before", "function": called, "schema": make(kind)}


Count = Annotated[int, Limits(ge=1)]
Positive = Annotated[float, Limits(gt=0)]


@dataclass(frozen=True, slots=True)
class Option:
    """How the command line offers a setting.

    Attributes:
        panel: heading of the help that it stands under.
        help: sentence or two that explain it.
        fallback: default in words, where the recipe, the profile or the model decides it.
        flag: further name of the option, such as ``-o``.
        names: kind of ``edgelr list`` that lists what it takes.
        unit: name of a value that has a unit.
    """

    panel: str
    help: str
    fallback: str = ""
    flag: str = ""
    names: str = ""
    unit: str = ""


def _option(panel: str, text: str, fallback: str = "", default: Any = None, **rest: str) -> Any:
    return field(default=default, metadata={"option": Option(panel, text, fallback, **rest)})


_PANELS = (
    *("Model", "Device", "Aim (at most one)", "Compression"),
    *("Calibration", "Proof", "Healing", "Output"),
)
_model, _device, _aim, _compression, _calibration, _proof, _healing, _output = (
    partial(_option, panel) for panel in _PANELS
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides a run; ``edgelr.yaml`` holds these fields by these names.

    At most one of ``keep``, ``max_size``, ``max_drop`` and ``max_latency`` may be given. With none
    of them the smallest plan inside the profile's accuracy gate is taken.
    """

    model: str = _model(
        "Hub id, model folder, .gguf or .onnx file, or package.module:factory.", default=MISSING
    )
    task: Task | None = _model(
        "Name from 'edgelr list tasks'; tensors: any module.",
        "what its configuration tells",
        names="tasks",
    )
    revision: str | None = _model("Branch, tag or commit on the Hub.")
    trust_remote_code: bool = _model("Run code that comes with the model.", default=False)
    profile: str = _device(
        "Name from 'edgelr list profiles', or a .yaml file.", default="jetson", names="profiles"
    )
    context_tokens: Count | None = _device(
        "Longest sequence to leave memory for.", "the profile's", flag="--context"
    )
    keep: Annotated[float, Read(units.share)] | None = _aim(
        "Share of the factorizable weights' bytes to keep, such as 0.8 or 80%.", unit="share"
    )
    max_size: Annotated[str, Read(units.size_text)] | None = _aim(
        "Largest graph file, such as 60MB (60,000,000 bytes) or 60MiB.", unit="size"
    )
    max_drop: Annotated[float, Read(units.drop)] | None = _aim(
        "Largest loss: 0.05 or 5% of perplexity, cosine or labels.",
        "the profile's gate",
        unit="share",
    )
    max_latency: Annotated[float, Read(units.milliseconds)] | None = _aim(
        "Longest predicted time of a decoded token, or of an encoder's forward pass, such as 15ms.",
        unit="time",
    )
    recipe: str = _compression(
        "Named combination of the axes below.", default="edgelr", names="recipes"
    )
    grouping: Grouping | None = _compression(
        "What is factorized together; any: whatever pays.", "the recipe's"
    )
    method: str | None = _compression("Decomposition.", "the recipe's", names="methods")
    allocator: str | None = _compression("Allocation.", "the recipe's", names="allocators")
    forms: tuple[Form, ...] | None = _compression(
        "What a linear may become.", "the recipe's, or the method's"
    )
    precision: AskedPrecision | None = _compression(
        "int8, int4 and the like are those of the weights of linears and embeddings; auto: one for "
        "each. A suffix is the size of a block, which is 32 without one.",
        "auto with the recipe edgelr, else the profile's",
    )
    rounding: str | None = _compression(
        "How the integers of int8, int4 and int2 are found.", "the recipe's", names="roundings"
    )
    rounds: Annotated[int, Limits(ge=1, le=4)] = _compression(
        "Plans in a row, each on the model that the one before compressed.", default=1
    )
    calibration: tuple[str, ...] = _calibration(
        ".txt or .jsonl file, or 'self': text that the model writes; give several to mix. "
        "Models of images or sounds: a folder of them. An .onnx file: .npz of its inputs.",
        "self for decoders, else English that ships with Python",
        default=(),
    )
    calibration_tokens: Annotated[int, Limits(ge=256)] | None = _calibration(
        "Tokens to calibrate on: more lose less accuracy.", "16384, 256 images or 128 sounds"
    )
    calibration_length: Annotated[int, Limits(ge=8)] | None = _calibration(
        "Tokens of one calibration row.", "what suits the task"
    )
    seed: int = _calibration("Of sampled text and labels.", default=0)
    evaluation: str | None = _proof(
        ".txt or .jsonl file to judge on, which may hold true labels or targets. Models of images "
        "or sounds: a folder of them, or sounds with what is said in them (.jsonl). An .onnx file: "
        ".npz of its inputs.",
        "English that ships with Python; half of the calibration's images, sounds or arrays",
    )
    labels: str | None = _proof(
        "File with one label a line, for models that compare images with texts.",
        "the names of the sub-folders of images",
    )
    label_template: str = _proof(
        "Sentence around a label; '{}' takes labels as they are.", default="a photo of a {}"
    )
    heal_steps: Count | None = _healing(
        "Train the factors to answer like the original, for so many steps."
    )
    heal_minutes: Positive | None = _healing(
        "The same for so many minutes; the best state is kept."
    )
    heal_sites: HealedSites | None = _healing(
        "What heals; low_rank: factors of at most half of the full rank.", "the recipe's"
    )
    heal_adapter: Adapter | None = _healing(
        "Train an update instead, which is merged before the export."
    )
    out: str | None = _output("Folder of the bundle.", "MODEL-PROFILE", flag="-o")
    opset: Annotated[int, Limits(ge=11)] | None = _output(
        "Newest ONNX operator set to use.", "the profile's"
    )
    provider: Literal["cpu", "cuda"] | None = _output(
        "Insist on this provider here (exit code 5 if it is not used)."
    )
    with_tests: bool = _output("Write tests into the bundle: pytest DIR/tests.", default=False)
    rivals: bool = _output("Measure the original in int8 and int4, too.", default=True)

    def __post_init__(self) -> None:
        aims = [name for name in AIMS if getattr(self, name) is not None]
        if len(aims) > 1:
            raise ValueError(f"{' and '.join(aims)} are given; expected at most one of them")
        if self.task is not None:
            from edgelr.core.tasks import TASKS  # registries look for packages when imported

            TASKS.get(self.task)

    @property
    def max_size_bytes(self) -> int | None:
        """``max_size`` in bytes."""
        return None if self.max_size is None else units.parse_size(self.max_size)

    def given(self) -> dict[str, Any]:
        """Collect what differs from the defaults, as ``edgelr.yaml`` holds it."""
        return {
            each.name: list(value) if isinstance(value, tuple) else value
            for each in fields(self)
            if (value := getattr(self, each.name)) != each.default
        }


@cache
def setting_types() -> dict[str, Any]:
    """Map the name of every setting to its type."""
    return get_type_hints(Settings)


def choices(kind: Any) -> tuple[str, ...]:
    """List the words of the closed set in a type, in short; none where it is open."""
    if get_origin(kind) is Literal:
        short = {long: word for word, long in SHORT_PRECISIONS.items()}
        return tuple(short.get(word, word) for word in get_args(kind))
    return tuple(word for part in get_args(kind) for word in choices(part))


def make_settings(**options: Any) -> Settings:
    """Check options and collect them.

    Raises:
        InputError: an option is unknown or out of range.
    """
    from pydantic import ValidationError

    precision = options.get("precision")
    options["precision"] = SHORT_PRECISIONS.get(str(precision), precision)
    try:
        return _adapter().validate_python(options, extra="forbid")
    except ValidationError as error:
        problems = " ".join(map(_problem, error.errors()))
        raise InputError(f"The options cannot be used: {problems}") from error


def _problem(item: ErrorDetails) -> str:
    where, told = item["loc"], item["msg"].removeprefix("Value error, ")
    if not where:
        return f"{told}."
    name, found, types = str(where[0]), item["input"], setting_types()
    word, known = (str(found), choices(types[name])) if name in types else (name, types)
    return (
        f"{'.'.join(map(str, where))}: {told} (found {_short(found)}).{did_you_mean(word, known)}"
    )


@cache
def _adapter() -> TypeAdapter[Settings]:
    from pydantic import TypeAdapter

    return TypeAdapter(Settings)


def read_settings(path: Path, overrides: dict[str, Any]) -> Settings:
    """Read ``edgelr.yaml``; options of the command line win over it, an aim over any aim.

    Raises:
        InputError: the file is missing, no YAML mapping, or holds unknown or impossible values.
    """
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"Cannot read {path}: {error}. Expected a YAML file.") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} holds no mapping; expected lines such as 'profile: jetson'.")
    given = {str(name): value for name, value in found.items()}
    if not overrides.keys().isdisjoint(AIMS):  # a new aim takes the place of the file's
        given = {name: value for name, value in given.items() if name not in AIMS}
    return make_settings(**{**given, **overrides})


def write_settings(settings: Settings, path: Path) -> None:
    """Write the ``edgelr.yaml`` that reproduces a run."""
    import yaml

    path.write_text(yaml.safe_dump(settings.given(), sort_keys=False), encoding="utf-8")


def _short(value: Any) -> str:
    return type(value).__name__ if isinstance(value, (dict, list)) else str(value)
