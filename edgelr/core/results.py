"""What validation found: parity, metrics, the accuracy gate."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgelr.core.vocabulary import Precision

DENSE_LIMIT = 1e-4  # of the largest output; float32 rounds some 5e-6 of it away in thirty blocks


@dataclass(frozen=True, slots=True)
class Parity:
    """ONNX Runtime against the compressed model in torch, or ``against`` what it names.

    ``greedy_*`` are zero for models that do not generate. What ships in float16, or multiplies in
    int8, has a twin that computes in float32, and the other figures are the twin's.
    ``twin_max_error`` is the largest difference between the outputs of the two, as a share of the
    largest output; None without a twin.
    """

    max_abs_error: float
    max_abs_error_limit: float
    padded_max_abs_error: float
    greedy_prompts: int
    greedy_identical: int
    greedy_tokens: int
    twin_max_error: float | None = None
    twin_limit: float | None = None
    against: str = "torch"

    @property
    def passed(self) -> bool:
        errors = (self.max_abs_error, self.padded_max_abs_error)
        errors_fit = all(error <= self.max_abs_error_limit for error in errors)  # NaN never fits
        tokens_equal = self.greedy_identical == self.greedy_prompts
        twin_fits = (
            self.twin_max_error is None
            or self.twin_limit is None
            or self.twin_max_error <= self.twin_limit
        )
        return errors_fit and tokens_equal and twin_fits


@dataclass(frozen=True, slots=True)
class DenseParity:
    """Answers of the dense graph against the original's, before anything is compressed.

    Attributes:
        against: name of what the graph is compared with.
        rows: number of random inputs that were compared, each alone.
        max_abs_error: largest difference between two outputs.
        padded_max_abs_error: largest difference between rows that run as one padded batch, and
            alone.
        largest_output: largest absolute value of the original's outputs.
        longest: length of the longest input, tokens; 0 where inputs have one size.
        first_position: first position of a row whose output is outside the limit; None where
            there is none, or outputs have no positions.
        retraced: True where the first graph was outside the limit, and the model was traced.
        vector_max_abs_error: largest difference between two embeddings, of length 1: of what is
            pooled outside of the graph; 0 where nothing is.
    """

    against: str
    rows: int
    max_abs_error: float
    padded_max_abs_error: float
    largest_output: float
    longest: int = 0
    first_position: int | None = None
    retraced: bool = False
    vector_max_abs_error: float = 0.0

    @property
    def limit(self) -> float:
        return DENSE_LIMIT * self.largest_output

    @property
    def passed(self) -> bool:
        errors = (self.max_abs_error, self.padded_max_abs_error)
        vectors = self.vector_max_abs_error <= DENSE_LIMIT
        return vectors and all(error <= self.limit for error in errors)  # NaN never fits


@dataclass(frozen=True, slots=True)
class Interval:
    """Where a figure lies, with 95 % confidence; ``units`` were resampled to find it."""

    low: float
    high: float
    units: int


@dataclass(frozen=True, slots=True)
class Metric:
    """One accuracy figure of the bundle; ``baseline`` is the original model's, where it has one.

    ``interval`` is that of ``value`` beside this very baseline; None where nothing tells it.
    """

    name: str
    value: float
    baseline: float | None
    samples: int
    unit: str = ""
    interval: Interval | None = None


@dataclass(frozen=True, slots=True)
class Gate:
    """The figure that decides: the bad end of its interval must not be worse than ``limit``.

    ``worst`` is that end; None where a figure has no interval, and ``value`` decides. ``samples``
    is the number of samples behind the figure; 0 where it is unknown.
    """

    metric: str
    value: float
    limit: float
    higher_is_better: bool
    worst: float | None = None
    samples: int = 0

    @property
    def passed(self) -> bool:
        return self._allows(self.value if self.worst is None else self.worst)

    @property
    def undecided(self) -> bool:
        """Whether the sample is too small to tell: the figure is inside, its bad end is not."""
        return not self.passed and self._allows(self.value)

    @property
    def more_samples(self) -> int | None:
        """Estimate how many more samples would decide, if the figure stays where it is.

        An interval's half width falls with the root of their number. None where the gate has
        decided, or no number would do.
        """
        if not self.undecided or self.worst is None or not self.samples:
            return None
        room, half = abs(self.limit - self.value), abs(self.worst - self.value)
        times = (half / room) ** 2 if room else math.inf
        return math.ceil(self.samples * (times - 1)) if math.isfinite(times) else None

    def _allows(self, figure: float) -> bool:
        return figure >= self.limit if self.higher_is_better else figure <= self.limit


@dataclass(frozen=True)
class Validation:
    """Same answers? Parity with torch, accuracy against the original, and the gate's word.

    ``dense_parity`` is that of the graph before it was compressed; None where it was not compared.
    """

    parity: Parity | None
    metrics: tuple[Metric, ...]
    gate: Gate | None
    precision: Precision
    provider: str
    text: str
    notes: tuple[str, ...] = ()
    dense_parity: DenseParity | None = None

    @property
    def passed(self) -> bool:
        return (self.parity is None or self.parity.passed) and (
            self.gate is None or self.gate.passed
        )
