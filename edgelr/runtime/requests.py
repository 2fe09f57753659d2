"""Requests to the runtime: how graphs are run, what is timed, what is sampled.

Frozen values that a parent sends to a worker; none of them loads ONNX Runtime.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgelr.core.bundle import ExportBundle
from edgelr.core.measurement import phase_key
from edgelr.core.vocabulary import Phase, Progress
from edgelr.data.text import EvaluationSize

PIECE_TOKENS = 512  # of a long context that is read at once: the logits of all would not fit


@dataclass(frozen=True, slots=True)
class Execution:
    """How ONNX Runtime runs a graph.

    Attributes:
        provider: execution provider, ``"cpu"`` or ``"cuda"``.
        threads: threads of one operator; None takes every core of the process.
        memory_bytes: limit of the GPU's arena, which then grows by what is asked for and no more;
            None sets none. The CPU's memory is limited from outside.
        profile: prefix of the file with the times of every node, see ``Session.end_profile``; None
            writes none.
        as_written: whether products with dequantized weights are computed as the graph says;
            else ONNX Runtime rounds the other factor to 8 bits.
    """

    provider: str = "cpu"
    threads: int | None = None
    memory_bytes: int | None = None
    profile: Path | None = None
    as_written: bool = False


ON_CPU = Execution()


@dataclass(frozen=True, slots=True)
class PhaseSizes:
    """Lengths that are timed.

    Attributes:
        prefill_tokens: prompt lengths of a decoder.
        context_tokens: tokens before the one that a decoder decodes.
    """

    prefill_tokens: tuple[int, ...] = (128,)
    context_tokens: tuple[int, ...] = (128,)


USUAL_SIZES = PhaseSizes()


@dataclass(frozen=True, slots=True)
class TimedPhase:
    """One run of a bundle, as it is timed.

    Attributes:
        phase: name of what runs.
        batch: sequences, images or sounds that run together.
        tokens: new tokens of each; 0 where none are read.
        context_tokens: tokens in the cache before a decode.
    """

    phase: Phase
    batch: int
    tokens: int
    context_tokens: int = 0

    @property
    def key(self) -> str:
        """Name in ``Comparison.ratios``."""
        return phase_key(self.phase, self.batch, self.tokens, self.context_tokens)


@dataclass(frozen=True, slots=True)
class TimedInputs:
    """Inputs of timed runs.

    Attributes:
        piece_tokens: tokens of a context that are read at once, at most.
        samples: file of inputs for a graph that reads no tokens; None takes that in its bundle.
    """

    piece_tokens: int = PIECE_TOKENS
    samples: Path | None = None


RANDOM_INPUTS = TimedInputs()


@dataclass(frozen=True, slots=True)
class DeviceSizes:
    """Sizes of the largest runs that a device has to bear.

    Attributes:
        batch: sequences, images or sounds that run together.
        prefill_tokens: tokens that are read at once, at most.
        context_tokens: tokens of the longest text, with what is written behind it.
    """

    batch: int
    prefill_tokens: int
    context_tokens: int


@dataclass(frozen=True, slots=True)
class CappedRuns:
    """Runs of a bundle that take the most memory on a device.

    Attributes:
        phases: runs, in their order.
        tokens: tokens that are read at once, at most.
        context_tokens: tokens of the cache when it is full; the longest input of an encoder.
    """

    phases: tuple[TimedPhase, ...]
    tokens: int
    context_tokens: int


@dataclass(frozen=True)
class Evaluation:
    """Comparison of a bundle with its original.

    Attributes:
        original: dense export, which draws the answers that both are judged on.
        candidate: bundle that is compared with it.
        source: file or folder that the user named; None takes what there is without.
        size: amount of it that is read, at most.
        progress: callback while answers are drawn.
    """

    original: ExportBundle
    candidate: ExportBundle
    source: Path | None
    size: EvaluationSize
    progress: Progress | None = None


@dataclass(frozen=True, slots=True)
class TextRequest:
    """Text that a model samples from itself.

    Attributes:
        tokens: tokens to sample, rounded up to whole rows.
        length: tokens of a row, its first token included.
        batch: rows that step together.
        seed: random seed.
        prefix: token ids that the tokenizer puts before every text, before the one that is drawn.
        temperature: divisor of the logits; below 1 the text is more likely and less varied.
    """

    tokens: int
    length: int
    batch: int
    seed: int
    prefix: tuple[int, ...] = ()
    temperature: float = 1.0


@dataclass(frozen=True, slots=True)
class Probe:
    """A small graph, and the inputs on which it is timed.

    Attributes:
        path: graph file; it is loaded once.
        shapes: sets of input shapes, by the name of the input.
        cold: whether caches are emptied before every run: the weights of a whole model would not
            be in them, what a node hands to the next would.
    """

    path: Path
    shapes: list[dict[str, list[int]]]
    cold: bool
