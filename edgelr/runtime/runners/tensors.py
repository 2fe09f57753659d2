"""Any graph on whole tensors: its outputs, and Grams of what its linears read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgelr.core.bundle import ExportBundle
from edgelr.core.errors import EdgelrError, InputError
from edgelr.core.modality import TENSORS
from edgelr.core.vocabulary import Array
from edgelr.data.readings import Reading
from edgelr.data.tensors import (
    SAMPLES,
    GraphInput,
    Samples,
    count,
    feeds,
    load_samples,
    read_samples,
    take,
)
from edgelr.runtime.graphs import open_graph
from edgelr.runtime.requests import (
    ON_CPU,
    CappedRuns,
    DeviceSizes,
    Evaluation,
    Execution,
    PhaseSizes,
    TimedInputs,
    TimedPhase,
)
from edgelr.runtime.runners import RUNNERS, ReferenceAnswer, Runner

if TYPE_CHECKING:
    from edgelr.runtime.session import Session

BATCH_LIMIT = 1e-4  # difference of outputs in a batch and alone, of the largest

Outputs = Mapping[str, Array]


@RUNNERS.register(TENSORS)
class TensorsRunner(Runner):
    """A graph that is fed arrays.

    Args:
        session: session of the graph.
        samples: file of inputs for timed runs, where no other is named.

    Raises:
        InputError: no output is a floating-point number, so that nothing can be compared.
    """

    answer_names = ("runs",)

    def __init__(self, session: Session, samples: Path = Path(SAMPLES)) -> None:
        self.session, self._samples = session, samples
        self._first: Samples = {}  # that is timed
        ports = session.outputs.values()
        self._fetch = [port.name for port in ports if port.dtype.kind == "f"]
        if not self._fetch:
            raise InputError(
                f"{session.path} has no output of floating-point numbers, only "
                f"{', '.join(session.outputs)}. Expected one that can be compared. Make what the "
                f"others come from an output as well."
            )

    @classmethod
    def open(
        cls, bundle: ExportBundle, execution: Execution = ON_CPU, tokenizer: bool = True
    ) -> TensorsRunner:
        """Open the graph of a bundle; it has no tokenizer."""
        return cls(open_graph(bundle, execution), bundle.folder / SAMPLES)

    @classmethod
    def phases(cls, bundle: ExportBundle, sizes: PhaseSizes) -> list[TimedPhase]:
        """List one run."""
        return [TimedPhase("forward", 1, 0)]

    @classmethod
    def capped_runs(cls, bundle: ExportBundle, sizes: DeviceSizes) -> CappedRuns:
        """Run once: a graph decides about its batch."""
        return CappedRuns((TimedPhase("forward", sizes.batch, 0),), 0, 0)

    def samples(self, evaluation: Evaluation) -> Samples:
        """Read inputs of the graph; those in the candidate where none are named."""
        if evaluation.source is None:
            return load_samples(evaluation.candidate.folder / SAMPLES)
        ports = self.session.inputs.values()
        wanted = [GraphInput(each.name, each.dtype, each.shape) for each in ports]
        return read_samples(evaluation.source, wanted)

    def read_answers(self, answers: Mapping[str, Array]) -> list[ReferenceAnswer]:
        """Read inputs, and all outputs as one vector: see ``write_answers``.

        Places where an expected output is not finite are left out: a mask's "minus infinity" says
        nothing.
        """
        found = []
        for run in range(int(answers["runs"])):
            given = _with_prefix(answers, f"input_{run}.")
            wanted = _with_prefix(answers, f"output_{run}.")
            places = {name: np.isfinite(values) for name, values in wanted.items()}
            found.append(ReferenceAnswer((given, places), _joined(wanted, places)))
        return found

    def answer_again(self, answers: Mapping[str, Array]) -> dict[str, Array]:
        """Run the inputs of a file of reference answers again."""
        outputs = {
            f"output_{run}.{name}": values
            for run, each in enumerate(self.read_answers(answers))
            for name, values in self.outputs(each.row[0]).items()
        }
        return {**answers, **outputs}

    def run_alone(self, row: tuple[Outputs, Outputs]) -> Array:
        """Run inputs; join what is at the finite places of all outputs to one vector."""
        given, places = row
        return _joined(self.outputs(given), places)

    def run_together(self, rows: Sequence[tuple[Outputs, Outputs]]) -> list[Array]:
        """Run nothing: a graph from anywhere need not take batches."""
        return []

    def prepare(self, phase: TimedPhase, inputs: TimedInputs) -> Callable[[], object]:
        """Read the first sample, once."""
        self._first = self._first or feeds(load_samples(inputs.samples or self._samples), 0)
        return lambda: self.outputs(self._first)

    def outputs(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run the graph; weights that it lets be fed are as they are, unless they are fed."""
        found, _ = self.session.run(feeds, self._fetch)
        return dict(zip(self._fetch, found, strict=True))


def open_tensors(path: Path, execution: Execution = ON_CPU) -> TensorsRunner:
    """Open a graph file."""
    from edgelr.runtime.session import open_session

    return TensorsRunner(open_session(path, execution))


def outputs_together(
    runner: TensorsRunner, samples: Samples, weights: Mapping[str, Array]
) -> list[dict[str, Array]]:
    """Run samples as one batch, and divide its outputs into those of every sample."""
    stacked = {name: array[:, 0] for name, array in samples.items()}
    found = runner.outputs({**stacked, **weights})
    return [
        {name: array[[index]] for name, array in found.items()} for index in range(count(samples))
    ]


def takes_batches(runner: TensorsRunner, samples: Samples) -> bool:
    """Tell whether a graph answers samples together as it answers them alone, by trying two."""
    ports = runner.session.inputs
    for name, array in samples.items():
        shape = ports[name].shape
        if not shape or isinstance(shape[0], int) or array.shape[1] != 1:
            return False
    few = take(samples, 0, 2)
    if count(few) < 2:
        return False
    alone = [runner.outputs(feeds(few, index)) for index in range(count(few))]
    try:
        together = outputs_together(runner, few, {})
    except (EdgelrError, IndexError):  # a size of 1 is written into the graph, or there is no axis
        return False
    return all(
        found[name].shape == array.shape
        and np.allclose(found[name], array, atol=BATCH_LIMIT * np.abs(array).max(initial=0.0))
        for expected, found in zip(alone, together, strict=True)
        for name, array in expected.items()
    )


def write_answers(path: Path, samples: Samples, outputs: Sequence[Outputs]) -> None:
    """Write reference answers: the inputs of the first runs, and their outputs.

    Args:
        path: ``.npz`` file.
        samples: inputs.
        outputs: expected outputs by name, of each run.
    """
    arrays: dict[str, Array] = {"runs": np.array(len(outputs))}
    for run, wanted in enumerate(outputs):
        arrays |= {f"input_{run}.{name}": values for name, values in feeds(samples, run).items()}
        arrays |= {f"output_{run}.{name}": values for name, values in wanted.items()}
    np.savez(path, allow_pickle=False, **arrays)


def largest_output(outputs: Sequence[Outputs]) -> float:
    """Find the largest absolute value of all outputs that is finite."""
    every = (np.abs(values[np.isfinite(values)]) for each in outputs for values in each.values())
    return max((float(values.max(initial=0.0)) for values in every), default=0.0)


def _with_prefix(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    """Take the arrays whose names begin so, by the rest of their names."""
    names = [name for name in arrays if name.startswith(prefix)]
    return {name.removeprefix(prefix): arrays[name] for name in names}


def _joined(outputs: Outputs, places: Outputs) -> Array:
    """Join the values at some places of every output to one vector."""
    return np.concatenate([outputs[name][places[name]] for name in places])


def input_grams(
    path: Path, readings: Sequence[Reading], samples: Samples
) -> list[NDArray[np.float64]]:
    """Average ``x x^T`` over every position of every sample.

    Args:
        path: graph whose outputs are the values that are read.
        readings: values, and where their features are.
        samples: inputs of the runs.

    Returns:
        For each reading ``(in_features, in_features)``.
    """
    from edgelr.runtime.session import open_session

    session = open_session(path)
    names = list(dict.fromkeys(each.value for each in readings))
    sums = [np.zeros(())] * len(readings)
    positions = [0] * len(readings)
    for run in range(count(samples)):
        arrays = dict(zip(names, session.run(feeds(samples, run), names)[0], strict=True))
        for index, reading in enumerate(readings):
            for rows in reading.rows(arrays[reading.value]):
                x = rows.astype(np.float64)
                sums[index] = sums[index] + x.T @ x
                positions[index] += len(x)
    return [total / max(1, seen) for total, seen in zip(sums, positions, strict=True)]
