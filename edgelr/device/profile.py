"""Devices: a profile's numbers, checked, each with its unit and source.

profiles/jetson.yaml ── load_profile("jetson") ── DeviceProfile ── budget, graph, runtime

A profile is data, one device per file, complete in itself. ``memory.visible.value: detect`` asks
the machine that loads it; every other number is written down, or null where it must be measured.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError
from pydantic_core import ErrorDetails

from edgelr.core.errors import InputError
from edgelr.core.registry import Registry
from edgelr.core.vocabulary import MIB, Precision, WeightPrecision
from edgelr.device.machine import with_detected_memory

V = TypeVar("V")
U = TypeVar("U", bound=str)
_Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Cosine = Annotated[float, Field(ge=-1, le=1)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Figure(_Section, Generic[V, U]):
    """One number; ``verified`` means confirmed by a data sheet or a log, not only assumed."""

    value: V
    unit: U
    source: str = Field(min_length=1)
    verified: bool


Mebibytes = Figure[_Amount, Literal["MiB"]]
Gigabytes = Figure[_Rate | None, Literal["GB/s"]]
Teraflops = Figure[_Rate | None, Literal["TFLOPS"]]
Tokens = Figure[PositiveInt, Literal["tokens"]]
AccuracyLevel = Literal[1, 2, 3, 4]
Version = Figure[str, Literal["version"]]
ProductTime = Annotated[
    tuple[WeightPrecision, PositiveInt, PositiveInt, PositiveInt, _Rate], Field(strict=False)
]


class Memory(_Section):
    """What the operating system reports, and what is taken before a model is loaded."""

    visible: Mebibytes
    reserved: Mebibytes
    runtime: Mebibytes
    shared_with_gpu: bool


class Compute(_Section):
    """Peak rates. Null means unknown, or, for float16, that there is no arithmetic in it."""

    bandwidth: Gigabytes
    float32: Teraflops
    float16: Teraflops


class Software(_Section):
    """What runs the bundle on the device, and the newest ONNX that it loads."""

    provider: Literal["cpu", "cuda"]
    precision: Precision
    onnxruntime: Version
    max_opset: Figure[PositiveInt, Literal["opset"]]
    ir_version: Figure[PositiveInt, Literal["IR version"]]
    python: Version
    notes: str = ""


class Layout(_Section):
    """Shapes and offsets that the device's kernels like."""

    rank_multiple: Figure[PositiveInt, Literal["components"]]
    alignment: Figure[PositiveInt, Literal["bytes"]]
    accuracy_level: Figure[AccuracyLevel, Literal["level"]]


class ProfileWorkload(_Section):
    """What a budget leaves room for, unless the user asks for something else."""

    context_tokens: Tokens
    batch: Figure[PositiveInt, Literal["sequences"]]
    prefill_tokens: Tokens


class AccuracyGate(_Section):
    """How much worse than the original model a bundle may be."""

    max_perplexity_increase: Figure[_Amount, Literal["share"]]
    min_mean_cosine: Figure[_Cosine, Literal["cosine"]]
    min_top1_agreement: Figure[_Share, Literal["share"]] = Figure(
        value=0.98, unit="share", source="edgelr default", verified=False
    )
    min_spearman: Figure[_Cosine, Literal["correlation"]] = Figure(
        value=0.97, unit="correlation", source="edgelr default", verified=False
    )


class Detection(_Section):
    """How a machine is recognised; ``device_tree`` holds parts of its compatible or model text."""

    device_tree: tuple[str, ...] = Field(default=(), strict=False)
    any_machine: bool = False


class Kernels(_Section):
    """What ``edgelr profiles detect`` measured with ONNX Runtime on the device itself.

    ``node`` is what a node costs that computes little, ``attention_node`` the attention of one
    token; ``vector`` is the rate at which values move, ``attention`` that of long prompts.

    ``products`` has rows of precision of the weight, tokens, inputs, outputs, microseconds: every
    combination of the numbers that occur.
    """

    source: str = Field(min_length=1)
    threads: PositiveInt
    node: Figure[_Amount, Literal["us"]]
    vector: Figure[_Rate, Literal["GB/s"]]
    attention: Figure[_Rate, Literal["TFLOPS"]]
    attention_node: Figure[_Amount, Literal["us"]]
    products: tuple[ProductTime, ...] = Field(strict=False)


class DeviceProfile(_Section):
    """One device. The sections mirror the file; the properties give bytes, seconds and counts."""

    id: str
    title: str
    memory: Memory
    compute: Compute
    software: Software
    layout: Layout
    workload: ProfileWorkload
    gate: AccuracyGate
    detect: Detection = Detection()
    kernels: Kernels | None = None

    @property
    def visible_bytes(self) -> int:
        return round(self.memory.visible.value * MIB)

    @property
    def reserved_bytes(self) -> int:
        return round(self.memory.reserved.value * MIB)

    @property
    def runtime_bytes(self) -> int:
        return round(self.memory.runtime.value * MIB)

    @property
    def provider(self) -> Literal["cpu", "cuda"]:
        return self.software.provider

    @property
    def precision(self) -> Precision:
        return self.software.precision

    @property
    def max_opset(self) -> int:
        return self.software.max_opset.value

    @property
    def ir_version(self) -> int:
        return self.software.ir_version.value

    @property
    def rank_multiple(self) -> int:
        return self.layout.rank_multiple.value

    @property
    def accuracy_level(self) -> int:
        """What MatMulNBits multiplies quantized weights in: 1 float32, 4 eight bits."""
        return self.layout.accuracy_level.value

    @property
    def context_tokens(self) -> int:
        return self.workload.context_tokens.value

    @property
    def prefill_tokens(self) -> int:
        return self.workload.prefill_tokens.value

    def reading(self, tokens: int, context_tokens: int | None = None) -> DeviceProfile:
        """Give the same device with a workload of so many tokens, as an image or a sound has.

        The context is as long, unless it is given.
        """
        asked = {"prefill_tokens": tokens, "context_tokens": context_tokens or tokens}
        lengths = {
            name: self.workload.context_tokens.model_copy(update={"value": value})
            for name, value in asked.items()
        }
        return self.model_copy(update={"workload": self.workload.model_copy(update=lengths)})

    @property
    def bandwidth_bytes_per_second(self) -> float | None:
        gigabytes = self.compute.bandwidth.value
        return None if gigabytes is None else gigabytes * 1e9

    def flops_per_second(self, precision: Precision) -> float | None:
        """Give the peak rate in ``precision``, or None where it is not known."""
        peaks = {"float32": self.compute.float32, "float16": self.compute.float16}
        teraflops = peaks[precision].value
        return None if teraflops is None else teraflops * 1e12


# --- the catalogue -----------------------------------------------------------------------------


def profile_names() -> list[str]:
    """List the profiles of the catalogue, sorted."""
    return _catalogue().names()


def profile_path(name: str) -> Path:
    """Find the file of a profile of the catalogue.

    Raises:
        InputError: the name is unknown; close names are suggested.
    """
    return _catalogue().get(name)


def load_profile(name_or_path: str) -> DeviceProfile:
    """Load a profile by its name in the catalogue, or from a ``.yaml`` file of the user.

    Raises:
        InputError: the name is unknown, or the file cannot be read, or a key or number is wrong.
        EnvironmentProblem: the profile asks to detect the memory, and this machine cannot tell.
    """
    path = Path(name_or_path).expanduser()
    if path.suffix not in {".yaml", ".yml"}:
        path = profile_path(name_or_path)
    try:
        return DeviceProfile.model_validate(with_detected_memory(_read(path)))
    except ValidationError as error:
        complaints = "\n".join(f"  {_explain(detail)}" for detail in error.errors())
        example = (
            "Compare with a complete profile, for instance `edgelr profiles show generic-cpu`."
        )
        raise InputError(f"{path} is not a device profile:\n{complaints}\n{example}") from error


def _catalogue() -> Registry[Path]:
    packaged = Path(__file__).parents[1] / "_profiles"
    folder = packaged if packaged.is_dir() else Path(__file__).parents[2] / "profiles"
    catalogue: Registry[Path] = Registry("profile", group="edgelr.profiles")
    for path in folder.glob("*.yaml"):
        catalogue.register(path.stem)(path)
    return catalogue


def _read(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        known = ", ".join(profile_names())
        raise InputError(
            f"Cannot read the profile {path}: {error}. Expected a YAML file, or one of: {known}."
        ) from error


def _explain(detail: ErrorDetails) -> str:
    """Say in one line what was found under a dotted key, and what is expected there."""
    keys, found = detail["loc"], detail["input"]
    name = ".".join(map(str, keys)) or "the file"
    if detail["type"] == "missing":
        return f"{name}: not found, expected a value."
    if detail["type"] == "extra_forbidden":
        return f"{name}: unknown key, expected one of {_known_keys(keys[:-1])}."
    if detail["type"] == "model_type":
        return f"{name}: found {found!r}, expected a mapping with {_known_keys(keys)}."
    return f"{name}: found {found!r}, expected {detail['msg'].removeprefix('Input should be ')}."


def _known_keys(keys: tuple[int | str, ...]) -> str:
    section: Any = DeviceProfile
    for key in keys:
        section = section.model_fields[key].annotation
    return ", ".join(section.model_fields)
