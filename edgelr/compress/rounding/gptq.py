"""Round one input after the other; what an input's error costs is made up for by those that follow.

With ``H = L D L^T`` (``L`` unit lower triangular), an error ``E`` of the weight costs
``sum_j D_j |t_j - q_j|^2`` for each output, where ``t_j = w_j + sum_{k > j} E_k L_kj`` is what the
input ``j`` ought to become once those behind it are rounded: the nearest integer is the best choice
for the input, given the others. This is GPTQ (Frantar et al., 2022, arXiv:2210.17323) in the form
of Chee et al. (QuIP, 2023, arXiv:2307.13304).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgelr.compress.block_quantized import Blocks, join
from edgelr.compress.rounding import ROUNDING, ArrayMetric, Rounding
from edgelr.compress.rounding.grids import Grid, find_grid
from edgelr.compress.rounding.searched import searched
from edgelr.core.vocabulary import LAYOUTS, Array, WeightPrecision

COLUMNS = 64  # rounded between two products with what is behind them
DAMPING = 0.01  # of the mean diagonal of H
CHUNK_NUMBERS = 2**23  # rounded at a time, on all grids: a table of embeddings has many outputs


def gptq(weight: Array, metric: ArrayMetric, precisions: Sequence[WeightPrecision]) -> list[Blocks]:
    """Round in the metric of the inputs, the most important input first.

    Scales and zero points are those of ``searched``. Outputs are rounded by themselves, so that
    their metric does not count.

    Args:
        weight: weight, ``(out_features, in_features)``.
        metric: metric ``(G, H)`` of the errors; without ``H`` this is ``searched``.
        precisions: quantized precisions.
    """
    _, input_gram = metric
    if input_gram is None:
        return searched(weight, metric, precisions)
    triangle, importance = _triangle(input_gram), input_gram.diagonal()
    rows = max(1, CHUNK_NUMBERS // (weight.shape[1] * len(precisions)))
    parts = []
    for start in range(0, len(weight), rows):
        some = weight[start : start + rows].astype(np.float32)
        grids = [find_grid(some, importance, LAYOUTS[each]) for each in precisions]
        integers = _round_in_order(some, triangle, grids)
        parts.append([grid.blocks(each) for grid, each in zip(grids, integers, strict=True)])
    return [join(each) for each in zip(*parts, strict=True)]


def _triangle(input_gram: Array) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Order the inputs, the most important last, and factorize: ``H = L D L^T`` in that order.

    Returns:
        Order of the inputs, ``(in_features,)``, and ``L``, ``(in_features, in_features)``.
    """
    gram = input_gram.astype(np.float64)
    mean = max(float(gram.diagonal().mean()), float(np.finfo(np.float32).tiny))
    gram = gram + DAMPING * mean * np.eye(len(gram))
    order = gram.diagonal().argsort(kind="stable")
    root = np.linalg.cholesky(gram[np.ix_(order, order)])
    return order, (root / root.diagonal()).astype(np.float32)


def _round_in_order(
    weight: NDArray[np.float32],
    triangle: tuple[NDArray[np.int64], NDArray[np.float32]],
    grids: list[Grid],
) -> list[NDArray[np.float32]]:
    """Round a weight on each of the grids; the grids lie side by side, as further outputs.

    Returns:
        Integers of every grid, ``(in_features, out_features)``, as floats.
    """
    (order, lower), (outputs, inputs) = triangle, weight.shape
    scales, zeros = (
        np.concatenate(parts, axis=1)[order]
        for parts in zip(*(grid.by_input(inputs) for grid in grids), strict=True)
    )  # (inputs, grids * outputs)
    largest = np.repeat(np.array([grid.largest for grid in grids], np.float32), outputs)
    given = np.tile(weight.T[order], (1, len(grids)))
    codes = _descend(given, lower, scales, zeros, largest)
    in_place = np.empty_like(codes)
    in_place[order] = codes
    return np.split(in_place, len(grids), axis=1)


def _descend(
    given: NDArray[np.float32],
    lower: NDArray[np.float32],
    scales: NDArray[np.float32],
    zeros: NDArray[np.float32],
    largest: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Round the rows of ``given (inputs, outputs)`` from the last to the first."""
    errors, codes = np.zeros_like(given), np.empty_like(given)
    inputs = len(given)
    for start in reversed(range(0, inputs, COLUMNS)):
        end = min(start + COLUMNS, inputs)
        wanted = given[start:end] + lower[end:, start:end].T @ errors[end:]
        for row in reversed(range(start, end)):
            target = wanted[row - start]
            target += lower[row + 1 : end, row] @ errors[row + 1 : end]
            code = codes[row]
            np.divide(target, scales[row], out=code)
            code += zeros[row]
            np.rint(code, out=code)
            np.clip(code, 0.0, largest, out=code)
            np.subtract(given[row], (code - zeros[row]) * scales[row], out=errors[row])
    return codes


ROUNDING.register("gptq")(Rounding(gptq, "GPTQ, Frantar et al., 2022, arXiv:2210.17323"))
