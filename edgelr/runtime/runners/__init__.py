"""Runners: how the bundles of each modality are run, and everything that follows from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from edgelr.core.bundle import ExportBundle
from edgelr.core.registry import Registry
from edgelr.core.vocabulary import Array
from edgelr.runtime.requests import (
    ON_CPU,
    USUAL_SIZES,
    CappedRuns,
    DeviceSizes,
    Evaluation,
    Execution,
    PhaseSizes,
    TimedInputs,
    TimedPhase,
)

if TYPE_CHECKING:
    from edgelr.runtime.session import Session


@dataclass(frozen=True)
class ReferenceAnswer:
    """One input that is answered alone, and what it should be answered.

    Attributes:
        row: input of one run, as ``Runner.run_alone`` takes it.
        output: expected output of the graph.
        tokens: expected token ids, likeliest at every step; none where no text is generated.
    """

    row: Any
    output: Array
    tokens: tuple[int, ...] = ()


class Runner(Protocol):
    """A bundle that is open in ONNX Runtime.

    Lifecycle:
        1. Before anything is open: ``phases``, ``profiled_phase`` and ``capped_runs`` say which
           runs are timed or limited. A parent asks that, so that importing a runner loads no ONNX
           Runtime: ``runtime.graphs`` does when a graph is opened.
        2. ``open`` loads the graphs.
        3. Accuracy: ``samples`` of the original; evaluators get both runners and the samples.
        4. Parity: ``read_answers``, then every row alone, a few together, and some generated.
        5. Timing: ``prepare``, and call what it returns.

    Attributes:
        session: session of the graph that answers.
        answer_names: arrays that every file of reference answers has; the first holds an input.
        output_name: name of an output in such a file, before the number of its input.
    """

    session: Session
    answer_names: ClassVar[tuple[str, ...]]
    output_name: ClassVar[str] = "output"

    @classmethod
    def phases(cls, bundle: ExportBundle, sizes: PhaseSizes) -> list[TimedPhase]:
        """List the phases that are timed.

        Raises:
            InputError: the bundle cannot run these sizes.
        """
        ...

    @classmethod
    def profiled_phase(cls, bundle: ExportBundle, tokens: int) -> TimedPhase:
        """Name the phase whose operators are profiled: it reads ``tokens``, where it can."""
        return cls.phases(bundle, USUAL_SIZES)[0]

    @classmethod
    def capped_runs(cls, bundle: ExportBundle, sizes: DeviceSizes) -> CappedRuns:
        """List the runs that take the most memory on a device."""
        ...

    @classmethod
    def open(
        cls, bundle: ExportBundle, execution: Execution = ON_CPU, tokenizer: bool = True
    ) -> Runner:
        """Load the graphs of a bundle.

        Args:
            bundle: folder and manifest.
            execution: provider and threads.
            tokenizer: whether texts are read: measuring needs no tokenizer, nor its memory.
        """
        ...

    def samples(self, evaluation: Evaluation) -> Any:
        """Read what evaluators of the task compare on, as ``Known`` where the truth is told.

        Raises:
            InputError: the source is missing, or cannot be read.
        """
        ...

    def read_answers(self, answers: Mapping[str, Array]) -> list[ReferenceAnswer]:
        """Read the inputs of a file of reference answers, and what they should be answered."""
        inputs = numbered(answers, self.answer_names[0].removesuffix("_0"))
        pairs = zip(inputs, numbered(answers, self.output_name), strict=True)
        return [ReferenceAnswer(*pair) for pair in pairs]

    def answer_again(self, answers: Mapping[str, Array]) -> dict[str, Array]:
        """Make a file of reference answers anew: the same inputs, and the outputs of this graph."""
        rows = [each.row for each in self.read_answers(answers)]
        outputs = {f"{self.output_name}_{i}": self.run_alone(row) for i, row in enumerate(rows)}
        return {**answers, **outputs}

    def run_alone(self, row: Any) -> Array:
        """Run one row; return what its graph answers, without the axis of the batch."""
        return self.run_together([row])[0]

    def run_together(self, rows: Sequence[Any]) -> list[Array]:
        """Run rows as one batch, padded where they differ; return the answers without padding."""
        ...

    def vector(self, output: Array) -> Array:
        """Make the embedding of what the graph answered to a row alone, where the model embeds."""
        return output

    def generate(self, row: Any, new_tokens: int) -> list[int]:
        """Continue or answer a row by its likeliest tokens; nothing, where no text is generated."""
        return []

    def prepare(self, phase: TimedPhase, inputs: TimedInputs) -> Callable[[], object]:
        """Make the inputs of a phase, and the cache before it; return the run that is timed."""
        ...


RUNNERS: Registry[type[Runner]] = Registry(
    "runner", package="edgelr.runtime.runners", group="edgelr.runners"
)


def runner_of(bundle: ExportBundle) -> type[Runner]:
    """Find the runner of a bundle's modality.

    Raises:
        InputError: no package that is installed runs this modality.
    """
    return RUNNERS.get(bundle.manifest.modality)


def numbered(arrays: Mapping[str, Array], name: str) -> list[Array]:
    """List the arrays ``name_0``, ``name_1`` and so on."""
    count = sum(key.startswith(f"{name}_") for key in arrays)
    return [arrays[f"{name}_{index}"] for index in range(count)]
