"""Run any graph on whole tensors: Grams of what its linears read, outputs with other weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgelr.core.bundle import ExportBundle
from edgelr.core.errors import InputError
from edgelr.core.results import Metric, Parity
from edgelr.core.vocabulary import Array, Progress
from edgelr.data.tensors import Samples, count, feeds, load_samples
from edgelr.runtime.evaluators import evaluators_for
from edgelr.runtime.session import Session, open_session


class Tensors:
    """A graph that is fed arrays.

    Args:
        session: of the graph.

    Raises:
        InputError: no output is a floating-point number, so that nothing can be compared.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        ports = session.outputs.values()
        self._fetch = [port.name for port in ports if port.dtype.kind == "f"]
        if not self._fetch:
            raise InputError(
                f"{session.path} has no output of floating-point numbers, only "
                f"{', '.join(session.outputs)}. Expected one that can be compared. Make what the "
                f"others come from an output as well."
            )

    def outputs(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run the graph; weights that it lets be fed are as they are, unless they are fed."""
        found, _ = self.session.run(feeds, self._fetch)
        return dict(zip(self._fetch, found, strict=True))


def open_tensors(path: Path, provider: str = "cpu", threads: int | None = None) -> Tensors:
    """Open a graph file."""
    return Tensors(open_session(path, provider, threads))


def input_grams(
    path: Path, readings: Sequence[tuple[str, bool, tuple[int, ...]]], samples: Samples
) -> list[NDArray[np.float64]]:
    """Average ``x x^T`` over every position of every sample.

    Args:
        path: a graph whose outputs are the values that are read.
        readings: value, whether features are on axis 1, and strides over the positions.
        samples: what is run.

    Returns:
        For each reading ``(in_features, in_features)``.
    """
    session = open_session(path)
    names = list(dict.fromkeys(name for name, _, _ in readings))
    sums: list[NDArray[np.float64]] = []
    rows = [0] * len(readings)
    for run in range(count(samples)):
        arrays = dict(zip(names, session.run(feeds(samples, run), names)[0], strict=True))
        for index, (name, channels_first, strides) in enumerate(readings):
            x = _features_last(arrays[name], channels_first, strides).astype(np.float64)
            gram = x.T @ x
            if run:
                sums[index] += gram
            else:
                sums.append(gram)
            rows[index] += len(x)
    return [total / seen for total, seen in zip(sums, rows, strict=True)]


def _features_last(x: Array, channels_first: bool, strides: tuple[int, ...]) -> Array:
    """Bring what a linear reads to ``(positions, in_features)``."""
    if channels_first:
        x = x[(slice(None), slice(None), *(slice(None, None, step) for step in strides))]
        x = np.moveaxis(x, 1, -1)
    return x.reshape(-1, x.shape[-1])


def accuracy(
    reference: ExportBundle,
    candidate: ExportBundle,
    inputs: Path,
    provider: str = "cpu",
    threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[Metric, ...]:
    """Compare a candidate with its reference on samples, by every evaluator of raw tensors."""
    samples = load_samples(inputs)
    first, second = (
        open_tensors(bundle.model_path, provider, threads) for bundle in (reference, candidate)
    )
    found = (compare(first, second, samples, progress) for compare in evaluators_for("tensors"))
    return tuple(metric for metrics in found for metric in metrics)


def parity(
    bundle: ExportBundle, expected: Sequence[Mapping[str, Array]], samples: Samples, limit: float
) -> Parity:
    """Compare a bundle with what its factors give in the original graph, multiplied out.

    Args:
        bundle: the split graph.
        expected: outputs of the first runs.
        samples: what is run.
        limit: largest error that passes, as a share of the largest output.
    """
    runner = open_tensors(bundle.model_path)
    error = largest = 0.0
    for index, wanted in enumerate(expected):
        found = runner.outputs(feeds(samples, index))
        for name, values in wanted.items():
            finite = np.isfinite(values)
            difference = np.abs(found[name][finite] - values[finite])
            worst = float(difference.max(initial=0.0))
            error = max(error, worst if np.isfinite(worst) else float("inf"))
            largest = max(largest, float(np.abs(values[finite]).max(initial=0.0)))
    return Parity(
        max_abs_error=error,
        max_abs_error_limit=limit * largest,
        padded_max_abs_error=0.0,
        greedy_prompts=0,
        greedy_identical=0,
        greedy_tokens=0,
        against="the original graph with its factors multiplied out",
    )
