"""Everything that is known about one bundle on one device."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgelr.core.measurement import Comparison, Prediction
from edgelr.core.plan import Budget, Plan
from edgelr.core.results import Gate, Metric, Validation
from edgelr.core.vocabulary import Task, WeightPrecision


@dataclass(frozen=True, slots=True)
class LossCheck:
    """The loss of a plan: predicted on its calibration text, measured on the evaluation text."""

    predicted: float
    measured: float
    unit: str


@dataclass(frozen=True)
class Rival:
    """The original in int8 or int4, as ONNX Runtime's own quantizer rounds it.

    Attributes:
        precision: precision of every linear, and of the table of embeddings where it has one.
        file_bytes: bytes of the graph file and its weights.
        fits: whether the device has the memory for it.
        metrics: accuracy figures, measured as the bundle's are.
        gate: the figure that decides, beside the bundle's limit.
        comparison: latency and memory, measured in turns with the original; None where latency is
            predicted.
        prediction: latency on the device, predicted; None where it was measured.
    """

    precision: WeightPrecision
    file_bytes: int
    fits: bool
    metrics: tuple[Metric, ...]
    gate: Gate
    comparison: Comparison | None = None
    prediction: Prediction | None = None


@dataclass(frozen=True)
class Rivals:
    """What can be shipped instead of the bundle, and what to ship.

    Attributes:
        quantized: the original in int8 and int4; empty where it is made in neither.
        original_fits: whether the device has the memory for the original.
        ship: name of what to ship: ``bundle``, ``dense``, ``dense int8`` or ``dense int4``; None
            where nothing fits and is inside the gate, and where there is no rival.
        told: sentence that says what to ship and why, or why there is no rival.
    """

    quantized: tuple[Rival, ...]
    original_fits: bool
    ship: str | None = None
    told: str = ""


@dataclass(frozen=True)
class Report:
    """Everything that is known about one bundle on one device (``reports/<profile>.json``)."""

    schema_version: int
    created: str
    command: str
    source: str
    digest: str
    task: Task
    profile: str
    profile_title: str
    recipe: str
    fits: bool
    headroom_bytes: int
    dense_file_bytes: int
    bundle_file_bytes: int
    budget: Budget
    plan: Plan
    validation: Validation | None
    comparison: Comparison | None
    prediction: Prediction | None
    host_is_device: bool
    seconds: dict[str, float] = field(default_factory=dict)
    peak_bytes: int = 0
    environment: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    loss: LossCheck | None = None
    spectra: dict[str, tuple[float, ...]] = field(default_factory=dict)
    license: str = ""
    rivals: Rivals | None = None
