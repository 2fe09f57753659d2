"""What was measured or predicted of latency and memory."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgelr.core.results import Interval
from edgelr.core.vocabulary import Phase, Precision


def phase_key(phase: Phase, batch: int, tokens: int, context_tokens: int) -> str:
    """Name a phase: ``"prefill 128"``, ``"decode 128"`` (its context), ``"forward 8x128"``.

    What reads texts beside what reads images has ``"text 16"``.

    A graph that reads no tokens has ``"forward"`` alone.
    """
    if not tokens:
        return phase
    length = context_tokens if phase == "decode" else tokens
    return f"{phase} {length}" if batch == 1 else f"{phase} {batch}x{length}"


@dataclass(frozen=True, slots=True)
class PhaseLatency:
    """Latency of one phase. Prefill and forward: ``tokens`` new tokens; decode: one token.

    ``tokens`` is 0 where a graph reads none, but whole tensors.
    """

    phase: Phase
    batch: int
    tokens: int
    context_tokens: int
    repetitions: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    tokens_per_second: float

    @property
    def key(self) -> str:
        """Name in ``Comparison.ratios``."""
        return phase_key(self.phase, self.batch, self.tokens, self.context_tokens)


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Memory of a fresh process, from /proc: steady state after the runs, and the peak.

    Attributes:
        predicted_bytes: peak that the files of the bundle predict; of the GPU's memory,
            where that has its own.
        gpu_bytes: GPU memory of the process after the runs: an arena does not shrink. None
            on a CPU, and where the driver does not tell.
    """

    rss_anon_bytes: int
    rss_file_bytes: int
    peak_bytes: int
    baseline_bytes: int
    predicted_bytes: int | None = None
    gpu_bytes: int | None = None

    @property
    def most_bytes(self) -> int:
        """The peak that is predicted: on the GPU, where that was measured."""
        return self.peak_bytes if self.gpu_bytes is None else self.gpu_bytes


@dataclass(frozen=True, slots=True)
class OperatorTime:
    """Where the nodes of one operator ran, how many, and how long all of them took in one run."""

    operator: str
    provider: str
    nodes: int
    milliseconds: float


@dataclass(frozen=True, slots=True)
class CapCheck:
    """A bundle in a process whose memory was limited.

    Attributes:
        limit_bytes: memory that the device leaves to a process.
        mechanism: mechanism that enforced the limit.
        predicted_bytes: predicted memory of the bundle; None where it is unknown.
        peak_bytes: measured peak; None where the process was ended, and on a GPU whose driver does
            not tell.
        context_tokens: tokens of the cache, which was filled; an encoder's longest text.
        prefill_tokens: tokens that were read at once.
        problem: reason of the failure; empty where it ran.
    """

    limit_bytes: int
    mechanism: str
    predicted_bytes: int | None
    peak_bytes: int | None
    context_tokens: int
    prefill_tokens: int
    problem: str

    @property
    def passed(self) -> bool:
        return not self.problem


@dataclass(frozen=True)
class Measurement:
    """How fast and how big, in a child process, with the provider that was really used.

    ``notes`` say what disturbed it; of two that are compared, ``Comparison.notes`` do.
    """

    name: str
    provider: str
    precision: Precision
    threads: int
    file_bytes: int
    load_ms: float
    phases: tuple[PhaseLatency, ...]
    memory: MemoryUse
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """The dense export and the bundle, measured alternately.

    ``ratios`` maps a phase key such as ``"prefill 128"`` to the bundle's median time divided by
    the dense one's, and ``intervals`` to where that ratio lies; a phase of one repetition has none.
    """

    dense: Measurement
    bundle: Measurement
    ratios: dict[str, float]
    intervals: dict[str, Interval] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def faster(self, key: str) -> bool | None:
        """Whether the bundle is faster in a phase; None where that is undecided."""
        found = self.intervals.get(key)
        low, high = (found.low, found.high) if found else (self.ratios[key], self.ratios[key])
        return None if low <= 1 <= high else high < 1


@dataclass(frozen=True, slots=True)
class PredictedPhase:
    """Predicted latency of one phase, by the name that ``phase_key`` gives it."""

    key: str
    dense_ms: float
    bundle_ms: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a profile's figures say of a bundle: never a measurement.

    ``phases`` are those that were measured, where this machine is the device, and else those of the
    profile's workload.
    """

    phases: tuple[PredictedPhase, ...]
    resident_bytes: int
