"""What an error inside a linear costs the outputs of the graph: measured, linear by linear.

Errors of layers cannot be compared as they are. So the weight of one linear at a time is replaced
by a truncated one, and the outputs are compared: cosine distance over squared error of the layer.
The distance is nearly proportional to the squared error: a few ranks are enough for a curve.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgelr.core.vocabulary import Array, Progress
from edgelr.data.tensors import Samples, count, feeds
from edgelr.graph.expose import feeding_weights
from edgelr.graph.linears import Linear, find_linears
from edgelr.graph.open import open_foreign
from edgelr.runtime.evaluators.tensors import mean_distance
from edgelr.runtime.runners.tensors import TensorsRunner, open_tensors
from edgelr.stages.onnx.components import Components, Matrix

PROBED = (0.1, 0.35, 0.75)  # of the rank at which two factors are as large as the weight
PROBE_SAMPLES = 16  # every rank of every linear costs so many runs of the graph

Outputs = list[dict[str, Array]]


@dataclass(frozen=True)
class Weights:
    """The original graph with weights that can be replaced, run by run."""

    runner: TensorsRunner
    linears: dict[str, Linear]
    components: Components

    def outputs(self, ranks: Mapping[str, int], samples: Samples) -> Outputs:
        """Run the samples with some linears truncated to these ranks."""
        fed = {}
        for name, rank in ranks.items():
            linear = self.linears[name]
            product = self.components.truncate(name, rank)
            fed[linear.weight.name or ""] = linear.as_stored(product.dense())
        return [
            self.runner.outputs({**feeds(samples, index), **fed}) for index in range(count(samples))
        ]

    def distances(
        self, ranks: Mapping[str, int], samples: Samples, expected: Outputs
    ) -> list[float]:
        """Compare such outputs with the original's: mean cosine distance of every run."""
        found = self.outputs(ranks, samples)
        return [mean_distance(*pair) for pair in zip(expected, found, strict=True)]


def open_probe(graph: Path, components: Components) -> Weights:
    """Open a graph whose weights can be replaced; it lies in a folder that can be written."""
    linears = find_linears(open_foreign(graph)).found
    by_name = {each.site.name: each for each in linears if each.site.name in components.errors}
    with feeding_weights(graph, [each.weight.name or "" for each in by_name.values()]) as path:
        return Weights(open_tensors(path), by_name, components)


def measure_losses(
    weights: Weights, names: Sequence[str], samples: Samples, progress: Progress
) -> dict[str, Matrix]:
    """Predict, for every rank of the named linears, by how much it moves the outputs.

    Returns:
        Mean cosine distance of the outputs, ``(k + 1,)`` by name; it never increases with rank.
    """
    expected = weights.outputs({}, samples)
    losses = {}
    for done, name in enumerate(names, 1):
        error = weights.components.errors[name]
        ranks = probed_ranks(weights.linears[name])
        found = [
            float(np.mean(weights.distances({name: rank}, samples, expected))) for rank in ranks
        ]
        losses[name] = loss_curve(error, ranks, found)
        progress("sensitivity", done, len(names))
    return losses


def probed_ranks(linear: Linear) -> list[int]:
    """Choose the ranks at which a linear is measured, ascending."""
    site = linear.site
    even = site.parameters / (site.in_features + site.out_features)
    return sorted({max(1, round(share * even)) for share in PROBED})


def loss_curve(error: Matrix, ranks: Sequence[int], distances: Sequence[float]) -> Matrix:
    """Scale squared errors to the distances that were measured at some ranks.

    Args:
        error: squared error of the layer at every rank, ``(k + 1,)``.
        ranks: measured ranks, ascending.
        distances: cosine distances of the outputs at these ranks.
    """
    tiny = np.finfo(np.float64).tiny
    scales = [found / (error[rank] + tiny) for rank, found in zip(ranks, distances, strict=True)]
    loss = error * np.interp(np.arange(len(error)), ranks, scales)
    monotone: Matrix = np.maximum.accumulate(loss[::-1])[::-1]
    return monotone
