"""What every linear becomes, and the memory budget that a plan fits."""

from __future__ import annotations

from dataclasses import dataclass

from edgelr.core.vocabulary import LAYOUTS, Form, WeightPrecision


@dataclass(frozen=True, slots=True)
class Candidate:
    """One thing that a site may become. ``precision`` is that of its weights."""

    form: Form
    rank: int
    precision: WeightPrecision
    bytes: int
    flops: int
    predicted_loss: float


@dataclass(frozen=True, slots=True)
class Choice:
    """What an allocator decided for one group, and why."""

    candidate: Candidate
    reason: str


@dataclass(frozen=True, slots=True)
class SitePlan:
    """What one site becomes. ``dense_bytes`` is what it was, in the precision of the graph.

    ``resident_bytes`` is what ONNX Runtime holds of it in memory, ``candidate.bytes`` what a file
    does. ``group`` names the group that it is factorized with; None for a site alone. The bytes of
    what a group shares are counted at its first site.
    """

    name: str
    in_features: int
    out_features: int
    candidate: Candidate
    dense_bytes: int
    reason: str
    group: str | None = None
    resident_bytes: int = 0

    @property
    def changed(self) -> bool:
        """Whether the graph differs there from the original's."""
        return self.candidate.form != "dense" or self.candidate.precision in LAYOUTS


@dataclass(frozen=True)
class Plan:
    """Form, rank and precision of every site. ``predicted_loss`` is in the method's metric."""

    sites: tuple[SitePlan, ...]
    recipe: str
    allocator: str
    budget_bytes: int
    planned_bytes: int
    predicted_loss: float

    @property
    def dense_bytes(self) -> int:
        return sum(site.dense_bytes for site in self.sites)

    @property
    def resident_bytes(self) -> int:
        """Bytes of the planned weights in memory."""
        return sum(site.resident_bytes for site in self.sites)

    @property
    def kept(self) -> float:
        """Share of the factorizable weights' bytes that the plan keeps, in [0, 1]."""
        return self.planned_bytes / self.dense_bytes


@dataclass(frozen=True, slots=True)
class Budget:
    """Where a device's memory goes; what is left is for the planned weights, in memory."""

    device_bytes: int
    reserved_bytes: int
    runtime_bytes: int
    fixed_weight_bytes: int
    activation_bytes: int
    cache_bytes: int
    context_tokens: int
    context_token_bytes: int = 0  # what one more token of context takes
    model_tokens: int | None = None  # the longest context that the model takes

    @property
    def buffer_bytes(self) -> int:
        """Bytes of the runtime, of activations and of the cache."""
        return self.runtime_bytes + self.activation_bytes + self.cache_bytes

    @property
    def weight_bytes(self) -> int:
        """Bytes left for the factorizable weights; negative when nothing fits."""
        return self.device_bytes - (
            self.reserved_bytes
            + self.runtime_bytes
            + self.fixed_weight_bytes
            + self.activation_bytes
            + self.cache_bytes
        )
