"""Raw outputs of any graph: how far they moved, output by output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from edgelr.core.intervals import mean_interval
from edgelr.core.results import Metric
from edgelr.core.vocabulary import Array, Progress
from edgelr.data.tensors import Samples, count, feeds
from edgelr.runtime.evaluators import EVALUATORS, Evaluator


class TensorRunner(Protocol):
    """Any graph: arrays in, arrays out, by name."""

    def outputs(self, feeds: Mapping[str, Array], /) -> dict[str, Array]:
        """Return the outputs of one run that are floating-point numbers."""
        ...


def compare_tensors(
    reference: TensorRunner,
    candidate: TensorRunner,
    samples: Samples,
    progress: Progress | None = None,
) -> tuple[Metric, ...]:
    """Compare what two graphs make of the same inputs.

    Args:
        reference: runner of the original graph.
        candidate: runner of the compressed graph.
        samples: inputs of at least one run.
        progress: callback after each run.

    Returns:
        ``mean_cosine`` and ``min_cosine`` over all runs and outputs, an output of a run being one
        vector; and for every output its ``cosine`` and its ``relative_error``, the norm of the
        difference over that of the original, both averaged over the runs.
    """
    cosines: dict[str, list[float]] = {}
    errors: dict[str, list[float]] = {}
    runs = count(samples)
    for index in range(runs):
        expected = reference.outputs(feeds(samples, index))
        found = candidate.outputs(feeds(samples, index))
        for name, values in expected.items():
            cosines.setdefault(name, []).append(1 - distance(values, found[name]))
            errors.setdefault(name, []).append(relative_error(values, found[name]))
        if progress:
            progress("evaluate", index + 1, runs)
    everything = np.array(list(cosines.values()))
    sure = mean_interval(everything.mean(0))
    return (
        Metric("mean_cosine", float(everything.mean()), None, runs, "", sure),
        Metric("min_cosine", float(everything.min()), None, runs),
        *(Metric(f"cosine of {name}", float(np.mean(cosines[name])), None, runs)
          for name in cosines),
        *(Metric(f"relative_error of {name}", float(np.mean(errors[name])), None, runs)
          for name in errors),
    )  # fmt: skip


def mean_distance(expected: Mapping[str, Array], found: Mapping[str, Array]) -> float:
    """Average one minus the cosine over the outputs of a run."""
    return float(np.mean([distance(values, found[name]) for name, values in expected.items()]))


def distance(expected: Array, found: Array) -> float:
    """Compute one minus the cosine of two arrays as vectors, exactly where it is small.

    Places where the original is not finite do not count: a mask's "minus infinity" says nothing.
    """
    first, second = _vectors(expected, found)
    lengths = float(np.linalg.norm(first)), float(np.linalg.norm(second))
    if not all(lengths):
        return 0.0 if lengths[0] == lengths[1] else 1.0
    difference = first / lengths[0] - second / lengths[1]
    return float(difference @ difference) / 2


def relative_error(expected: Array, found: Array) -> float:
    """Compute the norm of the difference over that of the original."""
    first, second = _vectors(expected, found)
    error, length = float(np.linalg.norm(first - second)), float(np.linalg.norm(first))
    return error / length if length else (0.0 if not error else float("inf"))


def _vectors(expected: Array, found: Array) -> tuple[Array, Array]:
    finite = np.isfinite(expected)
    return expected[finite].astype(np.float64), found[finite].astype(np.float64)


EVALUATORS.register("tensors")(Evaluator(("tensors",), compare_tensors))
