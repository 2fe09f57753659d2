"""What an error inside a linear costs the outputs of the graph: measured, linear by linear.

Errors of layers cannot be compared as they are. So the weight of one linear at a time is replaced
by a truncated one, and the outputs are compared: cosine distance over squared error of the layer.
The distance is nearly proportional to the squared error: a few ranks are enough for a curve.

The number of runs does not grow with the graph: the more linears, the fewer samples each is run on.
Which samples move easily is learned from all linears, and how many are needed from the first few.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgelr.core.vocabulary import Array, Progress
from edgelr.data.tensors import Samples, count, feeds, take
from edgelr.graph.expose import feeding_weights
from edgelr.graph.linears import Linear, find_linears
from edgelr.graph.open import open_foreign
from edgelr.runtime.evaluators.tensors import mean_distance
from edgelr.runtime.runners.tensors import (
    TensorsRunner,
    open_tensors,
    outputs_together,
    takes_batches,
)
from edgelr.stages.onnx.components import Components, Matrix
from edgelr.stages.onnx.sampling import PILOT, design, enough, pooled, row_means

PROBE_SAMPLES = 32
BATCH = 8  # samples in a run: weights are fed once for these

Outputs = list[dict[str, Array]]


@dataclass(frozen=True)
class Weights:
    """The original graph with weights that can be replaced, run by run.

    Attributes:
        runner: graph.
        linears: linears whose weights can be fed, by name.
        components: decompositions of these.
        together: number of samples in a run; 1 where the graph takes no batches.
    """

    runner: TensorsRunner
    linears: dict[str, Linear]
    components: Components
    together: int = 1

    def outputs(self, ranks: Mapping[str, int], samples: Samples) -> Outputs:
        """Run the samples with some linears truncated to these ranks."""
        fed = {}
        for name, rank in ranks.items():
            linear = self.linears[name]
            product = self.components.truncate(name, rank)
            fed[linear.weight.name or ""] = linear.as_stored(product.dense())
        found: Outputs = []
        for start in range(0, count(samples), self.together):
            few = take(samples, start, start + self.together)
            if self.together > 1:
                found += outputs_together(self.runner, few, fed)
            else:
                found.append(self.runner.outputs({**feeds(few, 0), **fed}))
        return found

    def distances(
        self, ranks: Mapping[str, int], samples: Samples, expected: Outputs
    ) -> list[float]:
        """Compare such outputs with the original's: mean cosine distance of every run."""
        found = self.outputs(ranks, samples)
        return [mean_distance(*pair) for pair in zip(expected, found, strict=True)]


def open_probe(graph: Path, components: Components, samples: Samples) -> Weights:
    """Open a graph whose weights can be replaced.

    Args:
        graph: graph file, in a folder that can be written.
        components: decompositions of its linears.
        samples: inputs that show whether it takes batches.
    """
    linears = find_linears(open_foreign(graph)).found
    by_name = {each.site.name: each for each in linears if each.site.name in components.errors}
    with feeding_weights(graph, [each.weight.name or "" for each in by_name.values()]) as path:
        runner = open_tensors(path)
    return Weights(runner, by_name, components, BATCH if takes_batches(runner, samples) else 1)


def measure_losses(
    weights: Weights, names: Sequence[str], samples: Samples, progress: Progress
) -> dict[str, Matrix]:
    """Predict, for every rank of the named linears, by how much it moves the outputs.

    Returns:
        Mean cosine distance of the outputs, ``(k + 1,)`` by name; it never increases with rank.
    """
    progress("sensitivity", 0, len(names))
    shares, most, size = design(len(names), count(samples))
    groups = [names[start : start + size] for start in range(0, len(names), size)]
    ranks = {name: probed_ranks(weights.linears[name], shares) for name in names}
    probes = [
        {name: ranks[name][place] for name in group}
        for group in groups
        for place in range(len(shares))
    ]
    found = np.full((len(probes), count(samples)), np.nan)
    expected = weights.outputs({}, samples)

    def run(first: int, last: int) -> None:
        """Fill in the samples of every probe from its first to its last one."""
        for row, probe in enumerate(probes):
            chosen = np.random.default_rng(row).permutation(len(expected))[first:last]
            few = {name: array[chosen] for name, array in samples.items()}
            wanted = [expected[index] for index in chosen]
            found[row, chosen] = weights.distances(probe, few, wanted)
            progress("sensitivity", len(names) * (row + 1) // len(probes), len(names))

    pilot = min(PILOT, most)
    run(0, pilot)
    used = min(most, enough(row_means(found)[1]))
    if used > pilot:
        run(pilot, used)
    means, spread = row_means(found)
    error = 0.0 if used == len(expected) else spread / np.sqrt(max(pilot, used))
    return _curves(weights.components.errors, ranks, groups, means, error)


def _curves(
    errors: Mapping[str, Matrix],
    ranks: Mapping[str, list[int]],
    groups: Sequence[Sequence[str]],
    means: Matrix,
    error: float,
) -> dict[str, Matrix]:
    """Make curves over all ranks of what groups cost at the probed ones.

    Linears of a group divide its cost as their errors are, each relative to its output.
    """
    tiny = np.finfo(np.float64).tiny
    at_ranks = {name: errors[name][own] + tiny for name, own in ranks.items()}
    scales = []
    for group, distances in zip(groups, means.reshape(len(groups), -1), strict=True):
        outputs = {name: errors[name][0] + tiny for name in group}
        whole = np.sum([at_ranks[name] / outputs[name] for name in group], axis=0)
        scales += [distances / whole / outputs[name] for name in group]
    relative = np.array([errors[name][0] + tiny for name in ranks])[:, None]
    even = pooled(np.array(scales) * relative, error) / relative
    return {
        name: loss_curve(errors[name], own, scale * at_ranks[name])
        for (name, own), scale in zip(ranks.items(), even, strict=True)
    }


def probed_ranks(linear: Linear, shares: Sequence[float]) -> list[int]:
    """Choose the ranks at which a linear is measured, ascending."""
    site = linear.site
    even = site.parameters / (site.in_features + site.out_features)
    return [max(1, round(share * even)) for share in shares]


def loss_curve(error: Matrix, ranks: Sequence[int], distances: Sequence[float] | Matrix) -> Matrix:
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
