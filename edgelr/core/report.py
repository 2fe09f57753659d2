"""Everything that is known about one bundle on one device."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgelr.core.measurement import Comparison, Prediction
from edgelr.core.plan import Budget, Plan
from edgelr.core.results import Validation
from edgelr.core.vocabulary import Task


@dataclass(frozen=True, slots=True)
class LossCheck:
    """The loss of a plan: predicted on its calibration text, measured on the evaluation text."""

    predicted: float
    measured: float
    unit: str


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
